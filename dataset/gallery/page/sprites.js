// Thumbnails out of sprites, which are fetched and decoded beside the page, and forgotten when others are wanted.

const HELD_SPRITES = 48; // some 300 MB decoded

const sprites = new Map(); // address -> {image, ready, waiting}

/** Forget the thumbnail that an element shows or waits for. */
function unpaint(box) {
  if (box.sprite) box.sprite.waiting.delete(box);
  box.sprite = null;
  box.style.backgroundImage = "";
}

/** Show a row's thumbnail in an element, at most `side` pixels long, as soon as its sprite is there. */
function paint(box, run, row, side) {
  const { columns, side: most, sprite_rows: each } = run.about;
  const at = row.index % each;
  const [width, height] = fittedSize(row, most);
  const scale = side / most;
  box.style.width = `${width * scale}px`;
  box.style.height = `${height * scale}px`;
  box.style.backgroundSize = `${columns * side}px auto`;
  box.style.backgroundPosition = `${-(at % columns) * side}px ${-Math.floor(at / columns) * side}px`;
  const name = String(Math.floor(row.index / each)).padStart(5, "0");
  const sprite = spriteAt(`${run.at}sprites/${name}.webp?${row.chunk.digest}`);
  if (box.sprite === sprite) return;
  unpaint(box);
  box.sprite = sprite;
  if (sprite.ready) box.style.backgroundImage = `url("${sprite.image.src}")`;
  else sprite.waiting.add(box);
}

/** As dataset/gallery/sprites.py has it. */
function fittedSize(row, most) {
  const width = row.kind.values.get("width");
  const height = row.kind.values.get("height");
  const longer = Math.max(width, height);
  const fit = (one) => Math.max(1, Math.floor((2 * most * one + longer) / (2 * longer)));
  return [fit(width), fit(height)];
}

function spriteAt(address) {
  let sprite = sprites.get(address);
  if (sprite) {
    sprites.delete(address); // to the end: the last that was used
  } else {
    sprite = { image: new Image(), ready: false, waiting: new Set() };
    sprite.image.src = address;
    sprite.image.decode().then(
      () => {
        sprite.ready = true;
        for (const box of sprite.waiting) box.style.backgroundImage = `url("${sprite.image.src}")`;
        sprite.waiting.clear();
      },
      () => sprites.delete(address), // gone: the cell stays empty
    );
  }
  sprites.set(address, sprite);
  for (const [old, { ready }] of sprites) {
    if (sprites.size <= HELD_SPRITES) break;
    if (ready) sprites.delete(old);
  }
  return sprite;
}
