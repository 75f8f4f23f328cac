// The events of the server: kept open while the page is seen, opened again when they stop.

const SILENCE = 25_000;
const HIDDEN = 60_000;

export class Live {
  constructor(on) {
    this.on = on;
    this.source = null;
    this.heard = 0;
    this.tries = 0;
    this.hiding = 0;
    setInterval(() => this.watch(), 2000);
    document.addEventListener("visibilitychange", () => this.seen());
  }

  open() {
    this.close();
    this.heard = Date.now();
    const source = new EventSource("/api/events");
    this.source = source;
    source.onopen = () => { this.tries = 0; this.hear("open"); };
    source.onerror = () => this.lost(source);
    for (const kind of ["state", "view", "pipeline", "ping"]) {
      source.addEventListener(kind, (event) => {
        this.heard = Date.now();
        if (kind !== "ping") this.on.data(kind, JSON.parse(event.data));
        this.hear("open");
      });
    }
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  hear(state) {
    this.on.connection(state);
  }

  lost(source) {
    if (source !== this.source) return;
    this.hear("lost");
    // A browser tries again by itself, but not after an answer that was no stream.
    if (source.readyState === EventSource.CLOSED) {
      this.close();
      this.tries += 1;
      setTimeout(() => { if (!this.source && !document.hidden) { this.open(); this.on.check(); } }, Math.min(1000 * this.tries, 5000));
    }
  }

  watch() {
    if (this.source && Date.now() - this.heard > SILENCE) this.open();
  }

  seen() {
    clearTimeout(this.hiding);
    // A browser allows six connections to a server: a page that nobody sees gives its own back.
    if (document.hidden) this.hiding = setTimeout(() => { this.close(); this.hear("hidden"); }, HIDDEN);
    else if (!this.source) this.open();
  }
}
