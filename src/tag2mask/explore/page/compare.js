// Two methods' maps of one class in one photo, with a slider that wipes from one to the other.

import { ask, bars, chance, count, failure, large, make, picture, select, tags, tick } from "/page/parts.js";
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
  const from = context.parameters.from === "none" || run.classes[context.parameters.from] ? context.parameters.from : undefined; // which photos are gone through
  const photo = await ask("/api/image", { seed: context.seed, image, class: from }, { signal: context.signal });
  const named = run.classes[context.parameters.class] ? context.parameters.class : Math.max(0, run.classes.indexOf(photo.tags[0])); // a tag of the photo, else the first class
  const c = Number(named), name = run.classes[c], same = { image, class: c, left, right };
  const slider = make("input", { type: "range", min: 0, max: 100, value: context.parameters.wipe ?? 50, id: "wipe", "aria-label": `Wipe from ${context.methodName(left)} to ${context.methodName(right)}` });
  const go = (more) => context.go("compare", { ...same, from, wipe: slider.value, ...more });
  const step = (way) => go({ image: photo[way], class: run.classes[from] ? c : "" });
  const methods = trained.map((each) => [each, context.methodName(each)]);
  const among = from === "none" ? "without a tag" : `tagged ${run.classes[from]}`;
  root.append(make("h1", { text: `${name} in ${photo.id}` }),
    make("div", { className: "bar" },
      make("button", { type: "button", text: "Previous photo", "data-key": "previous photo", onclick: () => step("previous") }),
      make("button", { type: "button", text: "Next photo", "data-key": "next photo", onclick: () => step("next") }),
      select("class", run.classes.map((text, i) => [i, photo.tags.includes(text) ? `${text} (tagged)` : text]), c, (value) => go({ class: value }), "class"),
      select("left", methods, left, (value) => go({ left: value }), "left"), select("right", methods, right, (value) => go({ right: value }), "right"),
      from === undefined ? null : make("span", { className: "small", id: "among" }, "among ", make("a", { href: context.to("photos", { class: from }), text: `${count(photo.of, "photo", "photos")} ${among}` })),
      make("span", { className: "small keys" }, make("kbd", { text: "p" }), " ", make("kbd", { text: "n" }), " previous, next photo")));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input:not([type=range])")) return;
    if (event.key === "n") step("next");
    if (event.key === "p") step("previous");
  }, { signal: context.signal });

  let answer;
  try {
    answer = await ask("/api/maps", { seed: context.seed, ...same }, { signal: context.signal });
  } catch (error) { // one goes on from a photo that cannot be read
    if (error.name === "AbortError") throw error;
    root.append(failure(error, context.again));
    return;
  }
  const of = (method) => answer.methods.find((each) => each.method === method);
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
  const cut = () => {
    layers[0].style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    layers[1].style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    line.style.left = `${slider.value}%`;
    slider.setAttribute("aria-valuetext", `${slider.value} % ${context.methodName(left)}`);
  };
  const keep = () => context.keep({ wipe: slider.value });
  slider.addEventListener("input", cut);
  slider.addEventListener("change", keep);
  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = base.getBoundingClientRect();
    slider.value = (100 * (event.clientX - box.left)) / box.width;
    cut();
  };
  base.addEventListener("pointerdown", (event) => { base.setPointerCapture(event.pointerId); event.preventDefault(); drag(event); });
  base.addEventListener("pointermove", drag);
  base.addEventListener("pointerup", keep);
  cut();

  const ramp = make("span", { className: "ramp", "aria-hidden": "true" });
  ramp.style.background = HEAT;
  const chances = of(right).probabilities.map((p, i) => [run.classes[i], p]).sort((a, b) => b[1] - a[1]).slice(0, MOST_CHANCES);
  const read = (method) => `${context.methodName(method)}: probability of ${name} ${chance(of(method).probabilities[c])}. ` +
    (of(method).maps[c].peak ? `The map's maximum is ${of(method).maps[c].peak.toFixed(2)}.` : `The map of ${name} is empty here.`);
  root.append(
    make("div", { className: "two" },
      make("div", {}, base, slider, make("p", { className: "legend" }, make("span", {}, "no activation", ramp, "this map's maximum"))),
      make("div", { className: "facts" }, make("p", {}, "tagged ", tags(answer.tags)),
        answer.tagged ? null : make("p", { className: "small", text: `The photo is not tagged ${name}. Every map is divided by its own maximum, so that also a weak one looks hot.` }),
        [...new Set([left, right])].map((method) => make("p", { className: "small read", text: read(method) })),
        answer.tagged ? null : tick(context, { image, class: c, id: answer.id, blocked: answer.blocked }, name),
        make("h2", { text: `What ${context.methodName(right)} sees` }),
        bars(chances.map(([text, p]) => [text, p, chance(p)]), 1, run.classes.length - MOST_CHANCES))));
}
