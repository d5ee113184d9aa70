// Small pieces that the views are made of. Text from the server only ever becomes text, never markup.

export function make(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "text") node.textContent = value;
    else if (key in node && key !== "list" && key !== "form") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const number = (value) => value.toLocaleString("en");
export const count = (value, one, many) => `${number(value)} ${value === 1 ? one : many}`;
export const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

export function chance(p) { // a probability; one that is not nothing does not look like nothing
  if (p < 0.001) return "below 0.1\u00a0%";
  return p > 0.999 ? "above 99.9\u00a0%" : p < 0.1 || p > 0.99 ? `${(100 * p).toFixed(1)}\u00a0%` : percent(p);
}

export function classNumber(context) { // the class that the address names, else the first one
  const c = Number(context.parameters.class || 0), { classes } = context.run;
  if (classes[c] === undefined) throw new Error(`This run has no class number ${context.parameters.class}, only ${number(classes.length)} classes from 0; is the address that of another run?`);
  return c;
}

export function say(text) {
  document.getElementById("status").textContent = text;
}

export const token = document.querySelector('meta[name="token"]').content;

export async function ask(path, parameters = {}, options = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null));
  let response;
  try {
    response = await fetch(`${path}?${query}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The explorer does not answer; is it still running in its terminal?");
  }
  let values;
  try {
    values = await response.json();
  } catch {
    throw new Error(`The explorer sent something else than an answer (status ${response.status}).`);
  }
  if (!response.ok) throw new Error(values.error || `Status ${response.status}`);
  return values;
}

export function send(path, parameters, body, signal) {
  return ask(path, parameters, { method: "POST", body, signal, headers: { "X-Token": token } });
}

export function failure(error, again) {
  return make("div", { className: "error", role: "alert" }, make("p", { text: error.message }),
    again ? make("button", { type: "button", text: "Try again", "data-key": "try again", onclick: again }) : null);
}

export function tags(names) {
  return make("span", { className: "tags" }, names.length
    ? names.map((name) => make("span", { className: "tag", text: name }))
    : make("span", { className: "tag none", text: "no tag" }));
}

export function select(label, options, value, onchange, id) {
  const field = make("select", { id, onchange: () => onchange(field.value) },
    options.map(([key, text]) => make("option", { value: key, text, selected: String(key) === String(value) })));
  return make("label", {}, make("span", { text: label }), field);
}

export function picture(source, alt, paint) { // a photo, and what is painted over it
  const image = make("img", { src: source, alt, loading: "lazy", decoding: "async" });
  const fit = make("span", { className: "fit" }, image);
  const holder = make("span", { className: "picture" }, fit);
  image.addEventListener("error", () => fit.replaceChildren(make("span", { className: "broken", text: "this photo cannot be read" })));
  if (paint) {
    const canvas = make("canvas", { "aria-hidden": "true" });
    paint(canvas);
    fit.append(canvas);
  }
  return holder;
}

export const thumbnail = (seed, image) => `/thumbnail?seed=${seed}&image=${image}`;
export const large = (seed, image) => `/photo?seed=${seed}&image=${image}`;

export function pager(answer, go) {
  const pages = Math.max(1, Math.ceil(answer.all / answer.per_page));
  if (pages === 1) return null;
  const field = make("input", { type: "number", min: 1, max: pages, value: answer.page + 1, id: "page",
    onchange: () => go(Math.min(pages, Math.max(1, Number(field.value) || 1)) - 1) });
  return make("div", { className: "bar", role: "navigation", "aria-label": "Pages" },
    make("button", { type: "button", text: "Previous", "data-key": "previous page", disabled: answer.page <= 0, onclick: () => go(answer.page - 1) }),
    make("label", {}, make("span", { text: "page" }), field, make("span", { text: `of ${number(pages)}` })),
    make("button", { type: "button", text: "Next", "data-key": "next page", disabled: answer.page >= pages - 1, onclick: () => go(answer.page + 1) }));
}

export function bars(rows, most, more = 0) { // [name, value, text]; how many follow that are not shown
  return make("ul", { className: "bars" }, rows.map(([name, value, text]) => {
    const fill = make("span");
    fill.style.width = `${(100 * value) / Math.max(most, 1e-9)}%`;
    return make("li", {}, make("span", { className: "what", text: name }),
      make("span", { className: "track", "aria-hidden": "true" }, fill), make("span", { className: "amount", text }));
  }), more > 0 ? make("li", { className: "small", text: `and ${number(more)} more` }) : null);
}

export function tick(context, pair, name) { // "this photo really shows the class"
  const { run } = context, why = run.blocked_fault || (run.blockable ? "" : run.several_seeds);
  let wrong = null;
  const box = make("input", { type: "checkbox", checked: pair.blocked, disabled: why !== "", "data-key": `tick ${pair.image} ${pair.class}`,
    "aria-label": `${pair.id} really shows ${name}`, onchange: async () => {
    const blocked = box.checked;
    box.disabled = true; // one at a time
    wrong?.remove();
    try {
      context.blocked(await send("/api/blocked", {}, JSON.stringify({ image: pair.image, class: pair.class, blocked })));
      pair.blocked = blocked;
      box.closest(".card")?.classList.toggle("blocked", blocked);
      say(blocked ? `${pair.id} is on the block list for ${name}` : `${pair.id} is off the block list for ${name}`);
    } catch (error) {
      box.checked = !blocked;
      wrong = failure(error);
      box.closest(".tick").after(wrong);
    }
    box.disabled = false;
    box.focus();
  } });
  return make("label", { className: "tick", title: why || null }, box,
    make("span", { text: `really shows ${name}` }));
}

export async function counted(context, holder, ready) { // begin the pass over all images; show how far it is
  const words = make("span", { text: "Looking at every photo: what each prototype suppresses ..." });
  const bar = make("progress", { "aria-label": "Photos looked at" });
  holder.replaceChildren(make("div", { className: "work" }, words, bar));
  try {
    let job = await send("/api/counting", context.prototypes(), null, context.signal);
    while (job.state === "waiting" || job.state === "running" || job.state === "none") {
      if (job.total) {
        bar.max = job.total;
        bar.value = job.done;
        words.textContent = `Looking at every photo: ${number(job.done)} of ${number(job.total)}`;
      }
      await new Promise((done) => setTimeout(done, 400));
      job = await ask("/api/counting", context.prototypes(), { signal: context.signal });
    }
    if (job.state === "failed") throw new Error(job.message);
    say("Every photo has been looked at");
    await ready(); // in the place of what is shown
  } catch (error) {
    if (error.name !== "AbortError") holder.replaceChildren(failure(error, () => counted(context, holder, ready)));
  }
}
