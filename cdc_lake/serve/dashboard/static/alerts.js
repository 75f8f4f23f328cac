// Alerts with their evidence; acknowledging, resolving and silencing.

import { get, opened, post } from "./api.js";
import { h, put, unique } from "./dom.js";
import { cell, moment } from "./format.js";
import { Table, chip } from "./table.js";

const EVENT = ["at", "stream", "table", "op", "key", "values", "tx_id"];

export class Alerts {
  constructor(when) {
    this.when = when;
    const id = unique("card");
    this.count = h("p", { class: "about" });
    this.list = h("ul", { class: "alerts" }, h("li", { class: "awaited awaits" }, "Reading…"));
    this.said = h("p", { class: "said", role: "status" });
    this.silenced = h("ul", { class: "silences" });
    this.element = h("section", { class: "card full", "aria-labelledby": id }, h("header", {}, h("h2", { id }, "Alerts"), this.count), this.said, this.list);
    const other = unique("card");
    this.quiet = h("section", { class: "card full", "aria-labelledby": other }, h("header", {}, h("h2", { id: other }, "Silences"), h("p", { class: "about" }, "Alerts of these rules open and resolve, and nobody is told.")), this.silenced);
    this.elements = [this.element, this.quiet];
    this.open = new Map();
    this.loadSilences();
  }

  set(document) {
    const names = document.columns.map((c) => c.name);
    const alerts = document.rows.map((row) => Object.fromEntries(row.map((v, i) => [names[i], v])));
    const open = alerts.filter((a) => a.state !== "resolved").length;
    this.count.textContent = document.error ? document.error.message : `${open} not resolved, ${alerts.length} in all${document.truncated ? ", and older ones" : ""}.`;
    const kept = new Set(alerts.map((a) => a.id));
    for (const old of this.open.keys()) if (!kept.has(old)) this.open.delete(old);
    // What has the focus stays where it is: only lines that changed are made anew.
    const made = alerts.map((a) => {
      const text = JSON.stringify([a, Boolean(this.when.at)]);
      const old = this.open.get(a.id);
      if (old?.text === text) return old.element;
      const element = this.line(a, old?.element.querySelector("details")?.open);
      this.open.set(a.id, { text, element });
      return element;
    });
    if ([...this.list.children].some((child, i) => child !== made[i]) || this.list.children.length !== made.length) put(this.list, made);
    if (!made.length) put(this.list, h("li", { class: "empty" }, "No rule has opened an alert. Rules are files in the folder rules: cdc-lake rules check"));
  }

  line(alert, wasOpen) {
    const evidence = h("div", { class: "evidence" });
    const details = h("details", { ontoggle: () => { if (details.open && !evidence.firstChild) this.evidence(alert.id, evidence); } },
      h("summary", {}, h("span", { class: "line" }, chip(alert.state), chip(alert.severity), h("b", {}, alert.title || alert.rule), h("span", { class: "soft" }, `${alert.rule} · ${moment(String(alert.opened_at))}`))),
      evidence);
    const acts = h("div", { class: "acts" });
    const act = (word, path, done) => h("button", { type: "button", class: "small", "aria-label": `${word}: ${alert.title || alert.rule}`, onclick: (e) => this.act(e.target, `/api/alerts/${encodeURIComponent(alert.id)}/${path}`, {}, done) }, word);
    if (!this.when.at && alert.state === "open") acts.append(act("Acknowledge", "acknowledge", "Acknowledged."));
    if (!this.when.at && alert.state !== "resolved") {
      acts.append(act("Resolve", "resolve", "Resolved."));
      acts.append(h("button", { type: "button", class: "small", "aria-label": `Silence 1 h: the rule ${alert.rule}`, onclick: (e) => this.act(e.target, "/api/silences", { rule: alert.rule, span: "1h" }, `${alert.rule} is silent for an hour.`) }, "Silence 1 h"));
    }
    const by = alert.resolved_by ? `resolved by ${alert.resolved_by}, ${moment(String(alert.resolved_at))}` : alert.acknowledged_by ? `acknowledged by ${alert.acknowledged_by}, ${moment(String(alert.acknowledged_at))}` : "";
    const element = h("li", { class: `alert ${alert.state}`, "data-alert": alert.id }, details, by ? h("span", { class: "soft by" }, by) : null, acts);
    if (wasOpen) details.open = true;
    return element;
  }

  async evidence(id, place) {
    put(place, h("p", { class: "soft" }, "Reading…"));
    try {
      const { alert } = await get(`/api/alerts/${encodeURIComponent(id)}`);
      const events = alert.evidence || [];
      const table = new Table(`Events behind the alert ${id}`, { filter: false });
      table.set({ columns: EVENT.map((name) => ({ name, type: name === "at" ? "TIMESTAMP" : "VARCHAR" })), rows: events.map((e) => EVENT.map((n) => e[n] ?? null)), truncated: alert.evidence_count > events.length });
      put(place, h("p", { class: "soft" }, `Key ${alert.key || "none"} · ${alert.evidence_count} events`), alert.note ? h("p", {}, alert.note) : null, table.element);
    } catch (error) {
      put(place, h("p", { class: "wrong" }, error.message));
    }
  }

  async act(button, path, body, done) {
    button.disabled = true;
    try {
      await post(path, body);
      this.said.textContent = done;
      this.said.className = "said";
    } catch (error) {
      this.said.textContent = [error.message, error.why, error.next].filter(Boolean).join(" ");
      this.said.className = "said wrong";
      button.disabled = false;
    }
    this.loadSilences();
  }

  async loadSilences() {
    try {
      const { silences } = await get("/api/silences");
      put(this.silenced, silences.map((s) => h("li", {}, h("b", {}, s.rule), ` until ${moment(s.until)}, by ${s.by} `,
        h("button", { type: "button", class: "small", "aria-label": `End now: the silence of ${s.rule}`, onclick: (e) => this.act(e.target, `/api/silences/${encodeURIComponent(s.id)}/end`, {}, "The silence has ended.") }, "End now"))));
      if (!silences.length) put(this.silenced, h("li", { class: "empty" }, "Nothing is silenced."));
    } catch { /* the status line says that the server is away */ }
  }
}

export { cell, opened };
