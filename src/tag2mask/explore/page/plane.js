// Prototypes of all epochs in the plane: drag to pan, wheel or pinch to zoom, hover to see where one comes from.

import { ask, failure, make, number, percent, say, select, thumbnail } from "/page/parts.js";

const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#8c8c8c", "#b8a800"]; // Okabe and Ito, the yellow darker
const KINDS = { pca: "principal components", tsne: "t-SNE" };
const NEAR = 14, RADIUS = 5; // pixels

export async function plane(root, context) {
  const { run } = context;
  root.append(make("h1", { text: "Map of the prototypes" }));
  if (!context.method) {
    root.append(make("div", { className: "empty" }, make("p", { text: "This run has no method with prototypes, so there is nothing to map." })));
    return;
  }
  const kind = context.parameters.kind === "tsne" ? "tsne" : "pca";
  root.append(make("p", { className: "lead", text:
    "One common map of the prototypes of every epoch: circles are what a class looks like (positive), triangles what is taken for it (negative). " +
    "Near means alike. Where a triangle lies among the circles of its class, its tag may be missing." }));
  const holder = make("div");
  const kinds = select("map", Object.entries(KINDS), kind, (value) => context.go("map", { kind: value, class: context.parameters.class }), "kind");
  root.append(holder);
  wait();

  async function wait() {
    holder.replaceChildren(make("div", { className: "bar" }, kinds), make("div", { className: "work" }, make("span", { text: kind === "tsne" ? "Making the map; t-SNE takes up to a minute or two ..." : "Making the map ..." }), make("progress", { "aria-label": "Making the map" })));
    try {
      let answer = await ask("/api/plane", { ...context.prototypes(), kind }, { signal: context.signal });
      while (answer.state === "waiting" || answer.state === "running" || answer.state === "none") {
        await new Promise((done) => setTimeout(done, 300));
        answer = await ask("/api/plane", { ...context.prototypes(), kind }, { signal: context.signal });
      }
      if (answer.state === "failed") throw new Error(answer.message);
      if (!answer.about.length) holder.replaceChildren(make("p", { className: "empty", text: "There is no prototype to show: no class has a region of its own." }));
      else chart(answer);
    } catch (error) {
      if (error.name !== "AbortError") holder.replaceChildren(failure(error, wait));
    }
  }

  function chart(answer) {
    const points = answer.about.map(([positive, c, rank, epoch, image], i) => ({ negative: positive === 1, c, rank, epoch, image, x: answer.plane[i][0], y: answer.plane[i][1] }));
    const epochs = [...new Set(points.map((p) => p.epoch))].sort((a, b) => a - b);
    let c = context.parameters.class !== undefined && run.classes[context.parameters.class] ? Number(context.parameters.class) : -1;
    let place = epochs.length - 1, every = false, zoom = 1, middle = [0, 0], near = null, width = 1, height = 1;

    const canvas = make("canvas", { tabIndex: 0, role: "img", id: "plane", "aria-describedby": "plane-keys",
      "aria-label": `Map of ${number(points.length)} prototypes; n and p go from one to the next` });
    const tip = make("div", { className: "tip", hidden: true });
    const box = make("div", { className: "plane" }, canvas, tip);
    const colour = (p) => (c < 0 ? COLOURS[p.c % COLOURS.length] : p.c !== c ? "#8c8c8c" : p.negative ? COLOURS[0] : COLOURS[3]);
    const visible = (p) => every || p.epoch === epochs[place];
    const unit = () => 0.46 * Math.min(width, height) * zoom;
    const at = (p) => [width / 2 + (p.x - middle[0]) * unit(), height / 2 - (p.y - middle[1]) * unit()];

    function draw() {
      const density = devicePixelRatio || 1, context2d = canvas.getContext("2d");
      width = canvas.clientWidth;
      height = canvas.clientHeight;
      canvas.width = width * density;
      canvas.height = height * density;
      context2d.scale(density, density);
      if (every && c >= 0) trails(context2d);
      const shown = points.filter(visible), behind = shown.filter((p) => c >= 0 && p.c !== c);
      for (const p of [...behind, ...shown.filter((p) => c < 0 || p.c === c)]) {
        const faint = c >= 0 && p.c !== c;
        context2d.globalAlpha = faint ? 0.22 : every ? 0.35 + (0.55 * (epochs.indexOf(p.epoch) + 1)) / epochs.length : 0.85;
        mark(context2d, p, faint ? 3 : RADIUS);
      }
      context2d.globalAlpha = 1;
      if (near) {
        const [x, y] = at(near);
        context2d.strokeStyle = getComputedStyle(canvas).color;
        context2d.lineWidth = 2.5;
        context2d.beginPath();
        context2d.arc(x, y, RADIUS + 5, 0, 7);
        context2d.stroke();
      }
    }

    function mark(context2d, p, radius) {
      const [x, y] = at(p);
      context2d.fillStyle = colour(p);
      context2d.beginPath();
      if (p.negative) {
        context2d.moveTo(x, y - radius * 1.2);
        context2d.lineTo(x + radius * 1.1, y + radius * 0.8);
        context2d.lineTo(x - radius * 1.1, y + radius * 0.8);
      } else context2d.arc(x, y, radius, 0, 7);
      context2d.fill();
    }

    function trails(context2d) { // the same photo's negative from epoch to epoch
      const ways = Map.groupBy ? Map.groupBy(points.filter((p) => p.negative && p.c === c), (p) => p.image) : new Map();
      context2d.globalAlpha = 0.35;
      context2d.strokeStyle = COLOURS[0];
      context2d.lineWidth = 1;
      for (const way of ways.values()) {
        context2d.beginPath();
        way.forEach((p, i) => (i ? context2d.lineTo(...at(p)) : context2d.moveTo(...at(p))));
        context2d.stroke();
      }
    }

    function point(p, speak) {
      near = p;
      tip.hidden = !p;
      if (p) {
        const [x, y] = at(p), kindOf = p.negative ? `negative ${p.rank + 1} of ${run.classes[p.c]}` : `positive ${p.rank + 1} of ${run.classes[p.c]}`;
        tip.replaceChildren(...(p.negative ? [make("img", { src: thumbnail(context.seed, p.image), alt: "" })] : []),
          make("div", {}, make("b", { text: kindOf })), make("div", { text: `epoch ${p.epoch}${p.negative ? "; click to compare its maps" : ""}` }));
        tip.style.left = `${Math.min(Math.max(6, x + 14), Math.max(6, width - 216))}px`;
        tip.style.top = y > height / 2 ? "auto" : `${y + 14}px`;
        tip.style.bottom = y > height / 2 ? `${height - y + 14}px` : "auto";
        if (speak) say(`${kindOf}, epoch ${p.epoch}`);
      }
      draw();
    }

    function nearest(event) {
      const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      let best = null, least = NEAR ** 2;
      for (const p of points) {
        if (!visible(p) || (c >= 0 && p.c !== c)) continue;
        const [px, py] = at(p), distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least) [best, least] = [p, distance];
      }
      return best;
    }

    function zoomBy(factor, x = width / 2, y = height / 2) {
      const before = unit(), [dx, dy] = [x - width / 2, y - height / 2];
      zoom = Math.min(60, Math.max(0.5, zoom * factor));
      middle = [middle[0] + dx / before - dx / unit(), middle[1] - dy / before + dy / unit()];
      point(near);
    }

    function pan(dx, dy) {
      middle = [middle[0] - dx / unit(), middle[1] + dy / unit()];
      point(near);
    }

    function whole() {
      zoom = 1;
      middle = [0, 0];
      point(near);
    }

    const open = (p) => p && p.negative && context.go("compare", { image: p.image, class: p.c });
    const fingers = new Map();
    let moved = 0;
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, event); moved = 0; });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return void (near !== nearest(event) && point(nearest(event)));
      fingers.set(event.pointerId, event);
      moved += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
      if (fingers.size === 2) { // pinch
        const other = [...fingers.values()].find((each) => each.pointerId !== event.pointerId), box = canvas.getBoundingClientRect();
        const apart = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY);
        zoomBy(apart(event) / Math.max(1, apart(before)), (event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top);
      } else pan(event.clientX - before.clientX, event.clientY - before.clientY);
    });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => {
      fingers.delete(event.pointerId);
      if (kind === "pointerup" && moved < 5) {
        if (event.pointerType === "touch" && near !== nearest(event)) point(nearest(event), true); // the first touch shows, the second opens
        else open(nearest(event));
      }
    });
    canvas.addEventListener("pointerleave", () => !fingers.size && point(null));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      zoomBy(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const ways = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }, way = ways[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (way) pan(...way);
      else if (event.key === "+" || event.key === "=") zoomBy(1.3);
      else if (event.key === "-") zoomBy(1 / 1.3);
      else if (event.key === "0") whole();
      else if (event.key === "n" || event.key === "p") {
        const shown = points.filter((p) => visible(p) && (c < 0 || p.c === c)), i = shown.indexOf(near);
        if (shown.length) point(shown[(i + (event.key === "n" ? 1 : -1) + shown.length) % shown.length], true);
      } else if (event.key === "Enter") open(near);
      else return;
      event.preventDefault();
    });

    const words = make("output", { id: "epoch-words" });
    const slider = make("input", { type: "range", min: 0, max: epochs.length - 1, value: place, id: "epoch", "aria-label": "epoch" });
    const all = make("input", { type: "checkbox", id: "every", checked: every });
    const redraw = () => {
      place = Number(slider.value);
      every = all.checked;
      slider.disabled = every;
      words.textContent = every ? `epochs ${epochs[0]} to ${epochs.at(-1)}` : `epoch ${epochs[place]}`;
      slider.setAttribute("aria-valuetext", words.textContent);
      legend();
      point(null);
    };
    const keys = make("ul", { className: "legend", id: "keys" });
    const key = (background, text) => {
      const square = make("span", { className: "key" });
      square.style.background = background;
      return make("li", {}, square, text);
    };
    function legend() {
      keys.replaceChildren(...(c < 0 ? run.classes.map((name, i) => key(COLOURS[i % COLOURS.length], name))
        : [key(COLOURS[3], `● positive of ${run.classes[c]}`), key(COLOURS[0], `▲ negative of ${run.classes[c]}`), key("#8c8c8c", "other classes")]));
    }
    slider.addEventListener("input", redraw);
    all.addEventListener("change", redraw);
    const chosen = select("class", [[-1, "every class"], ...run.classes.map((name, i) => [i, name])], c, (value) => {
      c = Number(value);
      context.keep({ class: c < 0 ? "" : c });
      legend();
      point(null);
    }, "class");
    holder.replaceChildren(
      make("div", { className: "bar" }, kinds, chosen, epochs.length > 1 ? make("label", {}, words, slider) : make("span", { className: "quiet", text: "This run keeps the prototypes of its last epoch alone." }),
        epochs.length > 1 ? make("label", {}, all, "all epochs") : null,
        make("button", { type: "button", text: "+", "aria-label": "Zoom in", onclick: () => zoomBy(1.4) }),
        make("button", { type: "button", text: "−", "aria-label": "Zoom out", onclick: () => zoomBy(1 / 1.4) }),
        make("button", { type: "button", text: "Show all", onclick: whole })),
      box, keys,
      make("p", { className: "small", id: "plane-keys" }, "Keys on the map: arrows pan, ", make("kbd", { text: "+" }), " ", make("kbd", { text: "-" }), " zoom, ", make("kbd", { text: "0" }),
        " shows all, ", make("kbd", { text: "n" }), " ", make("kbd", { text: "p" }), " next and previous prototype, Enter compares the maps of its photo.",
        answer.variance ? ` The plane holds ${percent(answer.variance)} of the variance.` : "",
        answer.all > points.length ? ` The first ${number(points.length)} of ${number(answer.all)} prototypes, by rank.` : ""));
    redraw();
    const watch = new ResizeObserver(() => draw());
    watch.observe(canvas);
    context.signal.addEventListener("abort", () => watch.disconnect());
  }
}
