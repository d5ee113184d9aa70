// Two methods' maps of one class in one photo, with a slider that wipes from one to the other.

import { ask, bars, large, make, percent, picture, select, tags, tick } from "/page/parts.js";
import { HEAT, paintHeat } from "/page/paint.js";

const MOST_CHANCES = 8;

export async function compare(root, context) {
  const { run } = context, image = Math.min(context.photos - 1, Number(context.parameters.image) || 0);
  if (context.trained.length === 0) {
    root.append(make("h1", { text: "Compare" }), make("p", { className: "empty", text: "Nothing is trained in this run for this seed, so there are no maps to compare." }));
    return;
  }
  const trained = context.trained, pick = (value, fallback) => (trained.includes(value) ? value : trained.includes(fallback) ? fallback : trained.at(-1));
  const left = pick(context.parameters.left, "cam"), right = pick(context.parameters.right, "fpr");
  let c = context.parameters.class;
  if (c === undefined || !run.classes[c]) { // a tag of the photo, else the first class
    const about = await ask("/api/images", { seed: context.seed, page: Math.floor(image / 60) }, { signal: context.signal });
    const found = about.images.find((each) => each.image === image);
    c = Math.max(0, run.classes.indexOf(found?.tags[0]));
  }
  c = Number(c);
  const same = { image, class: c, left, right };
  const answer = await ask("/api/maps", { seed: context.seed, ...same }, { signal: context.signal });
  const of = (method) => answer.methods.find((each) => each.method === method), name = run.classes[c];
  const go = (more) => context.go("compare", { ...same, ...more });
  const step = (way) => go({ image: (image + way + context.photos) % context.photos, class: "" });

  const base = picture(large(context.seed, image), `${answer.id} with the maps of ${name}`), fit = base.querySelector(".fit");
  base.classList.add("wipe", "heat");
  const layers = [left, right].map((method) => {
    const canvas = make("canvas", { "aria-hidden": "true" });
    paintHeat(canvas, of(method).maps[c]);
    fit.append(canvas);
    return canvas;
  });
  const line = make("span", { className: "line" });
  base.append(line, make("span", { className: "side left", text: context.methodName(left) }), make("span", { className: "side right", text: context.methodName(right) }));
  const slider = make("input", { type: "range", min: 0, max: 100, value: 50, id: "wipe", "aria-label": `Wipe from ${context.methodName(left)} to ${context.methodName(right)}` });
  const cut = () => {
    layers[0].style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    layers[1].style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    line.style.left = `${slider.value}%`;
    slider.setAttribute("aria-valuetext", `${slider.value} % ${context.methodName(left)}`);
  };
  slider.addEventListener("input", cut);
  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = base.getBoundingClientRect();
    slider.value = (100 * (event.clientX - box.left)) / box.width;
    cut();
  };
  base.addEventListener("pointerdown", (event) => { base.setPointerCapture(event.pointerId); event.preventDefault(); drag(event); });
  base.addEventListener("pointermove", drag);
  cut();

  const ramp = make("span", { className: "ramp", "aria-hidden": "true" });
  ramp.style.background = HEAT;
  const methods = trained.map((each) => [each, context.methodName(each)]);
  const chances = of(right).probabilities.map((p, i) => [run.classes[i], p]).sort((a, b) => b[1] - a[1]).slice(0, MOST_CHANCES);
  root.append(make("h1", { text: `${name} in ${answer.id}` }),
    make("div", { className: "bar" },
      make("button", { type: "button", text: "Previous photo", onclick: () => step(-1) }),
      make("button", { type: "button", text: "Next photo", onclick: () => step(1) }),
      select("class", run.classes.map((text, i) => [i, answer.tags.includes(text) ? `${text} (tagged)` : text]), c, (value) => go({ class: value }), "class"),
      select("left", methods, left, (value) => go({ left: value }), "left"), select("right", methods, right, (value) => go({ right: value }), "right"),
      make("span", { className: "small keys" }, make("kbd", { text: "p" }), " ", make("kbd", { text: "n" }), " previous, next photo")),
    make("div", { className: "two" },
      make("div", {}, base, slider, make("p", { className: "legend" }, make("span", {}, "no activation", ramp, "this map's maximum"))),
      make("div", { className: "facts" }, make("p", {}, "tagged ", tags(answer.tags)),
        answer.tagged ? null : make("p", { className: "small", text: `The photo is not tagged ${name}. Every map is divided by its own maximum, so that also a weak one looks hot.` }),
        make("p", { className: "small", text: [left, right].map((m) => `${context.methodName(m)}: probability ${of(m).probabilities[c].toFixed(2)}, maximum ${of(m).maps[c].peak.toFixed(2)}`).join(" · ") }),
        answer.tagged ? null : tick(context, { image, class: c, id: answer.id, blocked: answer.blocked }, name),
        make("h2", { text: `What ${context.methodName(right)} sees` }),
        bars(chances.map(([text, p]) => [text, p, percent(p)]), 1))));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input:not([type=range])")) return;
    if (event.key === "n") step(1);
    if (event.key === "p") step(-1);
  }, { signal: context.signal });
}
