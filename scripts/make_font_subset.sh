#!/bin/sh
# Makes src/report/font/DejaVuSans-subset.ttf, the font of PNG figures: Latin-1, Greek and the signs that axes use.
# Needs the Debian package fonts-dejavu-core and fonttools (pip install fonttools).
set -eu
source=${1:-/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf}
cd "$(dirname "$0")/.."
python3 -m fontTools.subset "$source" \
  --unicodes='U+0020-007E,U+00A0-00FF,U+0391-03C9,U+2013,U+2014,U+2018-201D,U+2026,U+207B,U+2070-2079,U+2080-2089,U+2190-2193,U+2212,U+2264,U+2265,U+221E,U+2016,U+FFFD' \
  --layout-features='' --no-hinting --output-file=src/report/font/DejaVuSans-subset.ttf
