// A photo that is not in the set: looked at, shown, not kept.

import { chance, failure, make, picture, say, select, send } from "/page/parts.js";
import { paintHeat } from "/page/paint.js";

const MOST_BYTES = 24 * 1024 * 1024, SHOWN = 3;

export async function fresh(root, context) {
  const { run, trained } = context;
  if (!trained.length) {
    root.append(make("h1", { text: "A new photo" }), make("p", { className: "empty", text: "Nothing is trained in this run for this seed, so there is nothing to show of a photo." }));
    return;
  }
  const first = (name) => (trained.includes(name) ? name : trained.at(-1));
  let left = first("cam"), right = first("fpr"), file = null, chosen = null;
  const result = make("div"), input = make("input", { type: "file", accept: "image/*", id: "file", className: "unseen", onchange: () => look(input.files[0]) });
  const area = make("div", { className: "drop" }, make("p", { text: "Drop a photo here, or choose one. It stays on this machine and is not kept." }),
    make("label", { className: "button", htmlFor: "file", text: "Choose a photo" }), input);
  input.addEventListener("focus", () => area.classList.add("over"));
  input.addEventListener("blur", () => area.classList.remove("over"));

  async function look(given) {
    file = given ?? file;
    if (!file) return;
    if (file.size > MOST_BYTES) {
      result.replaceChildren(failure(new Error(`This file has more than ${MOST_BYTES / 1048576} MB; choose a smaller photo.`)));
      return;
    }
    result.replaceChildren(make("p", { className: "quiet", text: "Looking at it ..." }));
    try {
      const answer = await send("/api/new", { seed: context.seed, left, right }, file, context.signal);
      show(answer);
      say("The photo has been looked at");
    } catch (error) {
      if (error.name !== "AbortError") result.replaceChildren(failure(error, () => look()));
    }
  }

  function show(answer) {
    const of = (method) => answer.methods.find((each) => each.method === method), p = of(right).probabilities;
    const order = p.map((_, c) => c).sort((a, b) => p[b] - p[a]);
    chosen ??= new Set(order.slice(0, SHOWN).filter((c, i) => i === 0 || p[c] >= 0.3));
    const maps = make("div", { className: "pairs" });
    const fill = () => maps.replaceChildren(...(chosen.size ? order.filter((c) => chosen.has(c)).map((c) => make("section", { className: "pair" }, make("h2", { text: run.classes[c] }),
      [...new Set([left, right])].map((method) => {
        const shown = picture(answer.photo, `Map of ${run.classes[c]} by ${context.methodName(method)}`, (canvas) => paintHeat(canvas, of(method).maps[c]));
        shown.classList.add("heat");
        return make("figure", {}, shown, make("figcaption", { text: `${context.methodName(method)}: probability of ${run.classes[c]} ${chance(of(method).probabilities[c])}` }));
      }))) : [make("p", { className: "empty", text: "Choose a class above to see its maps." })]));
    const boxes = order.map((c) => {
      const box = make("input", { type: "checkbox", checked: chosen.has(c), onchange: () => { (box.checked ? chosen.add(c) : chosen.delete(c)); fill(); } });
      return make("label", {}, box, make("span", { text: run.classes[c] }), make("span", { className: "amount", text: chance(p[c]) }));
    });
    result.replaceChildren(make("fieldset", {}, make("legend", { text: `Classes, with their probability by ${context.methodName(right)}` }), make("div", { className: "chances" }, boxes)), maps);
    fill();
  }

  const methods = trained.map((each) => [each, context.methodName(each)]);
  for (const [kind, on] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
    area.addEventListener(kind, (event) => {
      event.preventDefault();
      area.classList.toggle("over", on);
      if (kind === "drop" && event.dataTransfer.files.length) { chosen = null; look(event.dataTransfer.files[0]); }
    });
  }
  input.addEventListener("click", () => { chosen = null; input.value = ""; });
  root.append(make("h1", { text: "A new photo" }), area, make("div", { className: "bar" },
    select("left", methods, left, (value) => { left = value; look(); }, "left"), select("right", methods, right, (value) => { right = value; look(); }, "right")), result);
}
