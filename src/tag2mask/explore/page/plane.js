// Prototypes of all epochs in the plane: drag to pan, wheel or pinch to zoom, hover to see where one comes from.
// A page is scrolled over it: one finger, and the wheel before the map has the focus, move the page.

import { ask, failure, make, number, percent, say, select, tags, thumbnail } from "/page/parts.js";

const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#b8a800", "#6a3d9a"]; // Okabe and Ito, the yellow darker, and a violet
const GREY = "#8c8c8c", POSITIVE = COLOURS[3], NEGATIVE = COLOURS[0];
const KINDS = { pca: "principal components", tsne: "t-SNE" };
const NEAR = 14, RADIUS = 5; // pixels
const AT_ONCE = 500; // milliseconds in which a map that is there comes, so that focus and scroll find it

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
  let wanted = () => context.parameters; // the choices that stand in the address
  const kinds = select("map", Object.entries(KINDS), kind, (value) => context.go("map", { ...wanted(), kind: value }), "kind");
  root.append(holder);
  await Promise.race([wait(), new Promise((done) => setTimeout(done, AT_ONCE))]);

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
    let place = epochs.includes(Number(context.parameters.epoch)) ? epochs.indexOf(Number(context.parameters.epoch)) : epochs.length - 1, every = context.parameters.every === "1", zoom = 1, middle = [0, 0], near = null, width = 1, height = 1;

    const canvas = make("canvas", { tabIndex: 0, role: "img", id: "plane", "aria-describedby": "plane-keys",
      "aria-label": `Map of ${number(points.length)} prototypes; n and p go from one to the next` });
    const tip = make("div", { className: "tip", hidden: true });
    const box = make("div", { className: "plane" }, canvas, tip);
    const few = run.classes.length <= COLOURS.length; // with more, two classes would share a colour
    const lit = () => (c >= 0 ? c : near?.c); // the class that is coloured
    const colour = (p) => (c < 0 && few ? COLOURS[p.c] : p.c !== lit() ? GREY : p.negative ? NEGATIVE : POSITIVE);
    const bounds = [0, 1].map((axis) => answer.plane.reduce(([low, high], at) => [Math.min(low, at[axis]), Math.max(high, at[axis])], [0, 0]));
    wanted = () => ({ class: c < 0 ? "" : c, epoch: place === epochs.length - 1 ? "" : epochs[place], every: every ? "1" : "" });
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
      context2d.lineWidth = 1;
      if (every && c >= 0) trails(context2d);
      const shown = points.filter(visible), behind = (p) => (c >= 0 || !few) && p.c !== lit();
      context2d.strokeStyle = getComputedStyle(canvas).color;
      for (const p of [...shown.filter(behind), ...shown.filter((p) => !behind(p))]) {
        const faint = c >= 0 && p.c !== c;
        context2d.globalAlpha = faint ? 0.22 : every ? 0.35 + (0.55 * (epochs.indexOf(p.epoch) + 1)) / epochs.length : 0.85;
        mark(context2d, p, faint ? 3 : RADIUS, faint);
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

    function mark(context2d, p, radius, faint) {
      const [x, y] = at(p);
      context2d.fillStyle = colour(p);
      context2d.beginPath();
      if (p.negative) {
        context2d.moveTo(x, y - radius * 1.2);
        context2d.lineTo(x + radius * 1.1, y + radius * 0.8);
        context2d.lineTo(x - radius * 1.1, y + radius * 0.8);
      } else context2d.arc(x, y, radius, 0, 7);
      context2d.closePath();
      context2d.fill();
      if (!faint) context2d.stroke(); // yellow and sky blue alone are pale on paper
    }

    function trails(context2d) { // the same photo's negative from epoch to epoch
      const ways = Map.groupBy ? Map.groupBy(points.filter((p) => p.negative && p.c === c), (p) => p.image) : new Map();
      context2d.globalAlpha = 0.35;
      context2d.strokeStyle = NEGATIVE;
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
        const photo = answer.photos[p.image], moment = momentOf(p);
        tip.replaceChildren(...(p.negative ? [make("img", { src: thumbnail(context.seed, p.image), alt: "" })] : []),
          make("div", {}, make("b", { text: kindOf }), `, epoch ${p.epoch}`),
          p.negative ? make("div", {}, photo ? tags(photo.tags) : "") : make("div", { text: "the mean of several photos' regions" }),
          p.negative ? make("div", { text: moment ? "click to open it" : "click to compare its maps; those of the first and the last epoch alone have a page" }) : "");
        const beside = x + 14 + tip.offsetWidth > width ? x - 14 - tip.offsetWidth : x + 14; // whole, and not over the point
        tip.style.left = `${Math.max(6, beside)}px`;
        tip.style.top = `${Math.max(6, Math.min(y + 14, height - tip.offsetHeight - 6))}px`;
        if (speak) say(`${kindOf}, epoch ${p.epoch}${p.negative ? `, tagged ${photo?.tags.join(", ") || "with nothing"}` : ", the mean of several photos' regions"}`);
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
      pan(0, 0);
    }

    function pan(dx, dy) { // the middle stays among the points, which else get lost
      middle = [middle[0] - dx / unit(), middle[1] + dy / unit()].map((at, axis) => Math.min(bounds[axis][1], Math.max(bounds[axis][0], at)));
      point(near);
    }

    function whole() {
      zoom = 1;
      middle = [0, 0];
      point(near);
    }

    function momentOf(p) { // at which its prototypes have a page
      const { moments } = context.method;
      return p.epoch === epochs.at(-1) && moments.includes("last") ? "last" : p.epoch === epochs[0] && moments.includes("first") ? "first" : null;
    }

    function open(p) {
      if (!p?.negative) return;
      if (momentOf(p)) context.go("negative", { class: p.c, rank: p.rank, moment: momentOf(p) });
      else context.go("compare", { image: p.image, class: p.c });
    }

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
        pan((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2); // of the point between them
      } else if (event.pointerType !== "touch") pan(event.clientX - before.clientX, event.clientY - before.clientY);
    });
    canvas.addEventListener("touchmove", (event) => event.touches.length > 1 && event.cancelable && event.preventDefault(), { passive: false });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => {
      fingers.delete(event.pointerId);
      if (kind === "pointerup" && moved < 5) {
        if (event.pointerType === "touch" && near !== nearest(event)) point(nearest(event), true); // the first touch shows, the second opens
        else open(nearest(event));
      }
    });
    canvas.addEventListener("pointerleave", () => !fingers.size && point(null));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
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

    addEventListener("keydown", (event) => event.key === "Escape" && near && point(null), { signal: context.signal });

    const words = make("output", { id: "epoch-words" });
    const slider = make("input", { type: "range", min: 0, max: epochs.length - 1, value: place, id: "epoch", "aria-label": "epoch" });
    const all = make("input", { type: "checkbox", id: "every", checked: every });
    const redraw = () => {
      place = Number(slider.value);
      every = all.checked;
      slider.disabled = every;
      words.textContent = every ? `epochs ${epochs[0]} to ${epochs.at(-1)}` : `epoch ${epochs[place]}`;
      slider.setAttribute("aria-valuetext", words.textContent);
      point(null);
    };
    const redrawn = () => {
      redraw();
      context.keep(wanted());
    };
    const keys = make("ul", { className: "legend", id: "keys" });
    const square = (background) => {
      const node = make("span", { className: "key" });
      node.style.background = background;
      return node;
    };
    function legend() {
      const name = run.classes[lit()], button = (text, value) => make("button", { type: "button", "data-key": `class ${value}`, onclick: () => choose(value, true) }, text);
      if (c < 0) {
        keys.replaceChildren(...run.classes.map((each, i) => make("li", {}, button([few ? square(COLOURS[i]) : null, each].filter(Boolean), i))));
      } else {
        keys.replaceChildren(make("li", {}, square(POSITIVE), `● positive of ${name}`), make("li", {}, square(NEGATIVE), `▲ negative of ${name}`),
          make("li", {}, square(GREY), "other classes"), make("li", {}, button("every class", -1)));
      }
    }
    function choose(value, byLegend) {
      const before = c;
      c = value;
      chosen.querySelector("select").value = c;
      context.keep(wanted());
      legend();
      if (byLegend) keys.querySelector(`[data-key="class ${c < 0 ? before : -1}"]`).focus(); // the way back, as the button is gone
      point(null);
    }
    slider.addEventListener("input", redraw);
    slider.addEventListener("change", redrawn);
    all.addEventListener("change", redrawn);
    const chosen = select("class", [[-1, "every class"], ...run.classes.map((name, i) => [i, name])], c, (value) => choose(Number(value)), "class");
    holder.replaceChildren(
      make("div", { className: "bar" }, kinds, chosen, epochs.length > 1 ? make("label", {}, words, slider) : make("span", { className: "quiet", text: "This run keeps the prototypes of its last epoch alone." }),
        epochs.length > 1 ? make("label", {}, all, "all epochs") : null,
        answer.all > points.length ? make("span", { className: "small", id: "thinned", text: `${number(points.length)} of ${number(answer.all)} prototypes: the first and the last epoch whole, of those between some` }) : null,
        make("button", { type: "button", "data-key": "zoom in", text: "+", "aria-label": "Zoom in", onclick: () => zoomBy(1.4) }),
        make("button", { type: "button", "data-key": "zoom out", text: "−", "aria-label": "Zoom out", onclick: () => zoomBy(1 / 1.4) }),
        make("button", { type: "button", "data-key": "show all", text: "Show all", onclick: whole })),
      box, keys,
      make("p", { className: "small", id: "plane-keys" },
        make("span", { className: "keys" }, "The wheel zooms with Ctrl, or once the map is clicked. Keys on the map: arrows pan, ", make("kbd", { text: "+" }), " ", make("kbd", { text: "-" }), " zoom, ",
          make("kbd", { text: "0" }), " shows all, ", make("kbd", { text: "n" }), " ", make("kbd", { text: "p" }), " next and previous prototype, Enter opens it, Escape closes what is told of it. "),
        make("span", { className: "fingers", text: "Two fingers move and zoom the map. " }),
        few ? "" : "A class is coloured when it is chosen below, or one of its prototypes is pointed at. ",
        answer.variance ? `The plane holds ${percent(answer.variance)} of the variance.` : ""));
    legend();
    redraw();
    const watch = new ResizeObserver(() => draw());
    watch.observe(canvas);
    context.signal.addEventListener("abort", () => watch.disconnect());
  }
}
