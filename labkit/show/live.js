// The live view in the page: it takes the place of the picture that the notebook has stored, shows each frame as it comes, keeps the
// last minute, and says so when the kernel has ended. It belongs to the model and not to an output, so the output that is saved is
// the picture alone. No library, no network.

const MINUTE = 60_000; // what can be stepped back through
const SILENT = 5_000; // the kernel tells at least once a second that all is as it was
const CALM = 1_000; // between two pictures, for who prefers reduced motion
const BEAT = 4_000; // how often the kernel is told that somebody looks

const registry = (window.labkitLive ??= new Map());

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

class Live {
  constructor(model) {
    this.model = model;
    this.place = model.get("place");
    this.frames = []; // {at, html: {view: html}, note}, the oldest first
    this.images = {};
    this.paused = false;
    this.shown = -1;
    this.ended = "";
    this.heard = Date.now();
    this.painted = 0;
    this.looking = false;
    this.onScreen = true;
    this.calm = window.matchMedia("(prefers-reduced-motion: reduce)");
    this.build();
    this.onMessage = (content) => this.take(content);
    this.onComm = () => { if (model.comm_live === false) this.end("The kernel has ended"); };
    model.on("msg:custom", this.onMessage);
    model.on("comm_live_update", this.onComm);
    this.observer = new MutationObserver(() => this.mount());
    this.observer.observe(document.body, { childList: true, subtree: true });
    this.seen = new IntersectionObserver((entries) => {
      this.onScreen = entries[entries.length - 1].isIntersecting;
      this.look();
    });
    this.seen.observe(this.root);
    this.onVisible = () => this.look();
    document.addEventListener("visibilitychange", this.onVisible);
    this.timer = setInterval(() => this.tick(), 500);
    registry.get(this.place)?.close();
    registry.set(this.place, this);
    this.mount();
  }

  build() {
    this.state = make("span", { class: "lk-state", role: "status" });
    this.pauseButton = this.button("Pause", "p", () => this.pause(!this.paused));
    this.pauseButton.setAttribute("aria-pressed", "false");
    this.backButton = this.button("◀ Back", "ArrowLeft", () => this.step(-1));
    this.forwardButton = this.button("Forward ▶", "ArrowRight", () => this.step(1));
    this.slider = make("input", { type: "range", min: "0", max: "0", value: "0", "aria-label": "step through the last minute" });
    this.slider.addEventListener("input", () => { this.pause(true); this.show(Number(this.slider.value)); });
    this.allButton = this.button("Whole machine", "a", () => this.everything());
    this.allButton.setAttribute("aria-pressed", "false");
    this.news = make("p", { class: "lk-news", role: "log", "aria-live": "polite", "aria-label": "what happened" });
    this.parts = {};
    const parts = Object.entries(this.model.get("titles")).map(([name, title]) => {
      const page = this.model.get("pages")[name];
      const manual = make("button", { type: "button", class: "lk-ref", "data-ref": `man:${page}`, "aria-label": `manual page ${page}` }, page);
      this.parts[name] = make("div", { class: "lk-scroll", tabindex: "0", role: "group", "aria-label": title });
      const part = make("section", { class: "lk-part", "data-part": name, hidden: "" }, make("h4", {}, title, manual), this.parts[name]);
      return part;
    });
    this.behind = make("section", { class: "lk-behind", hidden: "", tabindex: "-1", "aria-label": "what is behind it" });
    const hint = make("p", { class: "lk-hint" }, "Keys: p pauses, ← and → step through the last minute, Escape closes what is behind a name.");
    const bar = make("div", { class: "lk-bar", role: "toolbar", "aria-label": "time" },
      this.pauseButton, this.backButton, this.slider, this.forwardButton, this.allButton, this.state);
    this.root = make("div", { class: "lk-live", role: "region", "aria-label": this.model.get("label"), tabindex: "0",
      "data-lm-suppress-shortcuts": "true" }, bar, this.news, ...parts, this.behind, hint);
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.root.addEventListener("click", (event) => this.click(event));
    this.root.addEventListener("focusin", (event) => { this.focused = event.target; }); // at once: the output may be drawn anew in this second
  }

  button(text, keys, act) {
    const button = make("button", { type: "button", "aria-keyshortcuts": keys }, text);
    button.addEventListener("click", act);
    return button;
  }

  // The notebook draws its output anew when the stored picture changes: then this takes its place again, before the page is painted.
  mount() {
    if (this.root.isConnected || this.over) return;
    const place = document.querySelector(`.${CSS.escape(this.place)}`);
    if (!place || !this.frames.length) return this.look();
    const focused = this.focused;
    place.replaceChildren(this.root);
    this.focused = null;
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    this.look();
  }

  look() {
    const there = this.frames.length === 0 ? !!document.querySelector(`.${CSS.escape(this.place)}`) : this.root.isConnected && this.onScreen;
    const looking = !this.ended && there && document.visibilityState === "visible";
    if (looking !== this.looking) {
      this.looking = looking;
      this.heard = Date.now();
      this.say(looking ? "look" : "away");
    }
  }

  say(word, more = {}) {
    if (this.model.comm_live === false) return;
    this.model.send({ say: word, ...more });
  }

  tick() {
    this.look();
    const now = Date.now();
    if (this.looking && now - (this.beat ?? 0) > BEAT) { this.beat = now; this.say("alive"); }
    if (this.looking && !this.ended && this.frames.length && now - this.heard > SILENT) this.silent = true;
    this.follow(); // the last frame may have been held back, and none came after it
    this.tellState();
    if (this.root.contains(document.activeElement)) this.focused = document.activeElement;
    else if (this.root.isConnected) this.focused = null;
  }

  take(content) {
    this.heard = Date.now();
    this.silent = false;
    if (content.tell === "frame") this.frame(content);
    else if (content.tell === "behind") this.showBehind(content);
    else if (content.tell === "over") { this.over = true; this.end(content.why); }
    else if (content.tell === "alive") this.tellState();
  }

  frame(content) {
    Object.assign(this.images, content.images);
    const last = this.frames[this.frames.length - 1];
    this.frames.push({ at: content.at, html: { ...(last?.html ?? {}), ...content.html }, pace: content.pace });
    const dropped = this.frames.findIndex((one) => one.at * 1000 > content.at * 1000 - MINUTE);
    if (dropped > 0) {
      this.frames.splice(0, dropped);
      this.shown = Math.max(this.paused ? 0 : -1, this.shown - dropped);
    }
    this.slider.max = String(this.frames.length - 1);
    for (const sentence of content.news ?? []) this.news.textContent = sentence;
    this.mount();
    if (this.paused) { this.slider.value = String(this.shown); return; }
    this.follow();
  }

  // Show the last frame, unless it is too early for who prefers reduced motion.
  follow() {
    const last = this.frames.length - 1;
    if (this.paused || this.shown === last) return;
    if (!this.calm.matches || Date.now() - this.painted >= CALM) this.show(last);
  }

  show(number) {
    const frame = this.frames[number];
    if (!frame) return;
    this.painted = Date.now();
    this.shown = number;
    for (const [name, part] of Object.entries(this.parts)) {
      const html = frame.html[name];
      part.parentElement.hidden = html === undefined;
      if (html !== undefined && part.shownHtml !== html) this.replace(part, html);
    }
    this.slider.value = String(number);
    this.slider.setAttribute("aria-valuetext", this.ago(frame));
    this.tellState();
  }

  // Rows that did not change stay the elements that they are, with the focus; so does the table around them.
  replace(part, html) {
    part.shownHtml = html;
    const focus = part.contains(document.activeElement) ? document.activeElement.dataset.ref : null;
    const made = make("template");
    made.innerHTML = html.replace(/\{\{([0-9a-f]{16})\}\}/g, (whole, key) => this.images[key] ?? whole);
    this.patch(part, made.content);
    if (focus && !part.contains(document.activeElement))
      part.querySelector(`[data-ref="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  }

  patch(old, made) {
    const olds = [...old.childNodes], news = [...made.childNodes];
    news.forEach((node, index) => {
      const there = olds[index];
      if (!there) old.append(node);
      else if (there.isEqualNode(node)) return;
      else if (there.nodeType === 1 && there.nodeName === node.nodeName && node.childNodes.length && node.nodeName !== "BUTTON") {
        for (const { name } of [...there.attributes]) if (!node.hasAttribute(name)) there.removeAttribute(name);
        for (const { name, value } of [...node.attributes]) if (there.getAttribute(name) !== value) there.setAttribute(name, value);
        this.patch(there, node);
      } else there.replaceWith(node);
    });
    olds.slice(news.length).forEach((node) => node.remove());
  }

  ago(frame) {
    const seconds = this.frames[this.frames.length - 1].at - frame.at;
    return seconds < 0.05 ? "now" : `${seconds.toFixed(1)} s back`;
  }

  tellState() {
    const frame = this.frames[this.shown];
    const when = frame ? new Date(frame.at * 1000).toLocaleTimeString() : "";
    let text = "starting";
    let state = "live";
    if (this.ended || this.silent) {
      state = "ended";
      const why = this.ended || "The kernel has ended, or does not answer";
      text = this.paused ? `${why}: paused at ${when}, ${this.ago(frame)}` : `${why}: the last picture, of ${when}`;
    } else if (this.paused) {
      state = "paused";
      text = `paused at ${when}, ${this.ago(frame)}`;
    } else if (frame) text = `live, ${frame.pace} a second at most`;
    if (this.state.textContent !== text) { this.state.textContent = text; this.state.dataset.state = state; }
  }

  pause(paused) {
    this.paused = paused;
    this.pauseButton.setAttribute("aria-pressed", String(paused));
    this.pauseButton.textContent = paused ? "Go on" : "Pause";
    if (!paused) this.show(this.frames.length - 1);
    this.tellState();
  }

  // One step is a second: to the nearest frame that is that far away.
  step(way) {
    if (!this.frames.length) return;
    this.pause(true);
    const wanted = this.frames[this.shown].at + way;
    let best = this.shown + way;
    while (this.frames[best + way] && way * (wanted - this.frames[best].at) > 0.05) best += way;
    if (best >= this.frames.length) return this.ended ? undefined : this.pause(false);
    this.show(Math.max(0, best));
  }

  everything() {
    const all = this.allButton.getAttribute("aria-pressed") !== "true";
    this.allButton.setAttribute("aria-pressed", String(all));
    this.say("everything", { all });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onSlider = event.target === this.slider;
    if (event.key === "p") this.pause(!this.paused);
    else if (event.key === "a") this.everything();
    else if (event.key === "ArrowLeft" && !onSlider) this.step(-1);
    else if (event.key === "ArrowRight" && !onSlider) this.step(1);
    else if (event.key === "Escape" && !this.behind.hidden) this.hideBehind();
    else return event.stopPropagation();
    event.preventDefault();
    event.stopPropagation();
  }

  click(event) {
    const button = event.target.closest("button.lk-ref");
    if (!button) return;
    this.asked = button.dataset.ref;
    this.say("behind", { ref: button.dataset.ref });
  }

  showBehind(content) {
    const close = make("button", { type: "button" }, "Close");
    close.addEventListener("click", () => this.hideBehind());
    const text = make("pre", { tabindex: "0", role: "group", "aria-label": content.title }, content.text);
    this.behind.replaceChildren(make("div", { class: "lk-bar" }, make("strong", {}, content.title), close), text);
    this.behind.hidden = false;
    this.behind.focus({ preventScroll: true });
    this.behind.scrollIntoView({ block: "nearest" });
  }

  hideBehind() {
    this.behind.hidden = true;
    const back = this.asked && this.root.querySelector(`[data-ref="${CSS.escape(this.asked)}"]`);
    (back || this.root).focus({ preventScroll: true });
  }

  end(why) {
    this.ended ||= why;
    this.looking = false;
    if (!this.paused) this.show(this.frames.length - 1);
    this.tellState();
  }

  close() {
    this.observer.disconnect();
    this.seen.disconnect();
    clearInterval(this.timer);
    document.removeEventListener("visibilitychange", this.onVisible);
    this.model.off("msg:custom", this.onMessage);
    this.model.off("comm_live_update", this.onComm);
    if (registry.get(this.place) === this) registry.delete(this.place);
  }
}

export default {
  initialize({ model }) {
    const live = new Live(model);
    return () => live.end("The kernel has ended");
  },
};
