// Grids of numbers that come from the server, painted over photos.

const STOPS = "#161227 #27153f #3b1651 #52155f #6b1467 #84136a #9d1668 #b41f62 #c92f5a #da4350 #e75947 #f07143 #f48a48 #f6a259 #f5b972 #f4ce91 #f4e2b2 #f8f3d5".split(" ");
const CELL = 16; // pixels of the canvas for a cell, so that outlines stay thin
const OWN = [230, 159, 0], OTHER = [86, 180, 233]; // Okabe and Ito's orange and sky blue

const ramp = STOPS.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));

function heatColour(level) { // 0..255 -> red, green, blue
  const place = (level / 255) * (ramp.length - 1), low = Math.min(Math.floor(place), ramp.length - 2);
  return ramp[low].map((value, i) => Math.round(value + (ramp[low + 1][i] - value) * (place - low)));
}

export const HEAT = `linear-gradient(90deg, ${STOPS.join(", ")})`;

export function decoded(grid) {
  const text = atob(grid.data), values = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) values[i] = text.charCodeAt(i);
  return values;
}

export function paintHeat(canvas, grid) {
  canvas.width = grid.w;
  canvas.height = grid.h;
  const context = canvas.getContext("2d"), picture = context.createImageData(grid.w, grid.h);
  decoded(grid).forEach((level, i) => picture.data.set([...heatColour(level), Math.round(115 + (level / 255) * 95)], 4 * i));
  context.putImageData(picture, 0, 0);
}

function outline(context, values, grid, value, colour) {
  const differs = (x, y, inside) => (x < 0 || y < 0 || x >= grid.w || y >= grid.h ? false : (values[y * grid.w + x] === value) !== inside);
  for (const [width, stroke] of [[5, "rgb(0 0 0 / .6)"], [2.5, colour]]) {
    context.lineWidth = width;
    context.strokeStyle = stroke;
    context.beginPath();
    for (let y = 0; y < grid.h; y++) for (let x = 0; x < grid.w; x++) {
      if (values[y * grid.w + x] !== value) continue;
      const left = x * CELL, top = y * CELL;
      for (const [dx, dy, ax, ay, bx, by] of [[-1, 0, 0, 0, 0, 1], [1, 0, 1, 0, 1, 1], [0, -1, 0, 0, 1, 0], [0, 1, 0, 1, 1, 1]]) {
        if (differs(x + dx, y + dy, true)) {
          context.moveTo(left + ax * CELL, top + ay * CELL);
          context.lineTo(left + bx * CELL, top + by * CELL);
        }
      }
    }
    context.stroke();
  }
}

function cells(canvas, grid, colours) { // colours: value -> CSS colour
  canvas.width = grid.w * CELL;
  canvas.height = grid.h * CELL;
  const context = canvas.getContext("2d"), values = decoded(grid);
  values.forEach((value, i) => {
    if (!colours[value]) return;
    context.fillStyle = colours[value];
    context.fillRect((i % grid.w) * CELL, Math.floor(i / grid.w) * CELL, CELL, CELL);
  });
  return [context, values];
}

export function paintRegion(canvas, grid) { // dark but for the region
  const [context, values] = cells(canvas, grid, { 0: "rgb(0 0 0 / .68)" });
  outline(context, values, grid, 1, "#fff");
}

export function paintSuppressed(canvas, grid) { // 2: nearest to this negative, 1: to another
  const [context, values] = cells(canvas, grid, { 0: "rgb(0 0 0 / .3)", 1: `rgb(${OTHER.join(" ")} / .5)`, 2: `rgb(${OWN.join(" ")} / .7)` });
  outline(context, values, grid, 2, "#fff");
}
