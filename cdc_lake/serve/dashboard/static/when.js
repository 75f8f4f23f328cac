// The moment that the page shows: now, or one of the past, which the slider chooses.

import { $ } from "./dom.js";
import { whole } from "./format.js";

const PAUSE = 250;

export class When {
  constructor(changed) {
    this.changed = changed;
    this.at = null;
    this.began = null;
    this.newest = null;
    this.timer = 0;
    $("when").addEventListener("submit", (event) => event.preventDefault());
    $("slider").addEventListener("input", () => this.slid());
    $("live").addEventListener("click", () => this.choose(null));
    $("span").addEventListener("change", () => { this.anchor = this.at ?? this.newest; this.range(); });
    $("exact").addEventListener("change", () => { const at = new Date($("exact").value); if (!Number.isNaN(at.getTime())) this.choose(at, 0); });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape" && this.at && !event.defaultPrevented) this.choose(null); });
  }

  // What there is: the slider ends where the data ends.
  bounds(began, newest) {
    this.began = began ? new Date(began) : null;
    this.newest = newest ? new Date(newest) : null;
    if (!this.at) this.range();
    else $("slider").max = Math.floor(this.newest / 1000);
  }

  range() {
    const slider = $("slider");
    slider.disabled = !this.newest || !this.began;
    if (slider.disabled) { this.show(); return; }
    const end = Math.ceil(this.newest / 1000);
    const span = $("span").value;
    const first = Math.ceil(this.began / 1000);
    let start = span === "all" ? first : Math.max(first, end - Number(span));
    if (this.at) start = Math.min(start, Math.floor(this.at / 1000));
    slider.min = String(Math.min(start, end - 1));
    slider.max = String(end);
    slider.value = String(this.at ? Math.floor(this.at / 1000) : end);
    this.show();
  }

  slid() {
    const slider = $("slider");
    this.choose(Number(slider.value) >= Number(slider.max) ? null : new Date(Number(slider.value) * 1000), PAUSE);
  }

  choose(at, pause = 0) {
    const was = this.at;
    this.at = at;
    if (at === null) this.range();
    else { const slider = $("slider"); if (Number(slider.min) > at / 1000) slider.min = String(Math.floor(at / 1000)); slider.value = String(Math.floor(at / 1000)); this.show(); }
    clearTimeout(this.timer);
    if (was !== at) this.timer = setTimeout(() => this.changed(), pause);
  }

  get text() {
    return this.at ? this.at.toISOString().replace(".000", "") : null;
  }

  show() {
    const past = Boolean(this.at);
    document.body.classList.toggle("past", past);
    $("live").setAttribute("aria-pressed", String(!past));
    const shown = this.at ?? this.newest;
    const words = shown ? whole(shown) : "no transaction yet";
    $("shown").textContent = words;
    $("slider").setAttribute("aria-valuetext", past ? words : `now, ${words}`);
    if (shown && document.activeElement !== $("exact")) {
      const local = new Date(shown.getTime() - shown.getTimezoneOffset() * 60_000);
      $("exact").value = local.toISOString().slice(0, 19);
    }
  }
}
