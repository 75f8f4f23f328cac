// Asking the server. An answer that is an error is thrown with its words.

let session = null;

export class Refused extends Error {
  constructor(status, error) {
    super(error.message || `The server answered ${status}.`);
    this.status = status;
    this.why = error.why || "";
    this.next = error.next || "";
  }
}

async function answer(response) {
  const text = await response.text();
  let document = null;
  try { document = JSON.parse(text); } catch { /* said below */ }
  if (!response.ok || document === null) throw new Refused(response.status, (document && document.error) || {});
  return document;
}

export async function get(path, signal) {
  return answer(await fetch(path, { signal, credentials: "same-origin" }));
}

export async function opened() {
  session ??= await get("/api/session");
  return session;
}

export async function post(path, body) {
  const { action } = await opened();
  const headers = { "content-type": "application/json", "x-cdc-lake-action": action };
  return answer(await fetch(path, { method: "POST", headers, credentials: "same-origin", body: JSON.stringify(body) }));
}
