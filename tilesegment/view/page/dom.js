// Making elements of the page.

/** An element with attributes (a value of false leaves one out) and children. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children);
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

/** One line above the image; an empty text takes it away. */
export function notice(text) {
  byId('notice').textContent = text;
  byId('notice').hidden = !text;
}
