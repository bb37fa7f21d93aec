"""What the commands do: the only modules that know everything below."""
