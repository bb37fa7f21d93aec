#!/bin/sh
# The bundled model `nuclei` from scratch, bit for bit: about two hours of one CPU core.
#
#     sh examples/nuclei_model.sh TRAIN NUCLEI.safetensors
#
# TRAIN holds `images` and `instances` of BBBC038v1 (2018 Data Science Bowl, stage 1, CC0); the
# names begin with the kind of picture. The first training learns all kinds. The second goes on at
# a lower rate with more noise, blur and contrast, for pictures that are fainter than these. At last
# it is calibrated for 8-bit integers.
set -eu
data=$1
model=$2
first=${model%.safetensors}-first.safetensors
second=${model%.safetensors}-second.safetensors

train() {
  tilesegment train "$data" --labels instances --names background,nucleus \
    --base-channels 16 --depth 3 --dropout 0.1 --tile 192 --batch 4 \
    --optimiser adamw --weight-decay 0.01 --schedule cosine \
    --border-weight 3 --class-balance 0.15 \
    --emphasis he=6 --emphasis brightfield1024=1.5 --emphasis fluo256=2 \
    --emphasis fluo360=2 --emphasis fluo520x696=2 --emphasis fluo603x1272=0.8 \
    --emphasis fluo1040=0.3 \
    --zoom 0.3 1.2 --smallest-object 8 --colour 0.12 --counterstain 1.3 \
    --gamma 0.3 --brightness 0.02 \
    --note 'data=BBBC038v1, 2018 Data Science Bowl stage 1, hand-corrected, CC0' \
    --threads 1 --seed 0 "$@"
}

train --output "$first" --steps 5000 --learning-rate 0.0015 --assess-every 500 \
  --contrast 0.5 --noise 0.01 --blur 1.2 --emphasis fluo512x640=1.5

train --output "$second" --start "$first" --steps 600 --learning-rate 0.0006 --assess-every 600 \
  --contrast 0.8 --noise 0.03 --blur 2 --emphasis fluo512x640=4

tilesegment calibrate "$second" "$data"/images/* --output "$model" --windows 1
