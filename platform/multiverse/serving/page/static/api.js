// The server's HTTP API: what model there is, and one streamed request. URLs are relative to the page's own.

/** A failure, with what to do about it. `status`: the HTTP status, 0 where there is none. */
export class ApiFailure extends Error {
  constructor(title, detail, status = 0) {
    super(detail);
    this.title = title;
    this.status = status;
  }
}

const TITLES = {
  400: "The server refused the request",
  401: "The API key is missing or not known",
  403: "The API key does not allow this",
  404: "Not found",
  429: "The server is busy, or the key's limit is reached",
  500: "The model failed",
  502: "The server does not answer",
  503: "The server is overloaded or starting",
};

export function headers(key) {
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

/** The served model's card. */
export async function servedModel(key, signal) {
  const response = await send("v1/models", { headers: headers(key), signal });
  return (await response.json()).data[0];
}

/** Send the body; `onChunk` gets each chunk of the stream. Resolves at the stream's end, rejects with ApiFailure. */
export async function ask(body, key, signal, onChunk) {
  const request = { method: "POST", headers: headers(key), body: JSON.stringify(body), signal };
  const response = await send("v1/chat/completions", request);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await read(reader, signal);
    if (done) throw lost();
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      // The status was sent long ago: a failure comes as a chunk.
      if (chunk.error) throw new ApiFailure(TITLES[500], chunk.error.message, 500);
      onChunk(chunk);
    }
  }
}

async function send(url, request) {
  let response;
  try {
    response = await fetch(url, { cache: "no-store", credentials: "same-origin", ...request });
  } catch (error) {
    if (request.signal?.aborted) throw error;
    throw new ApiFailure("The server cannot be reached", "Is it running? Check the connection, then try again.");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function read(reader, signal) {
  try {
    return await reader.read();
  } catch (error) {
    if (signal.aborted) throw error;
    throw lost();
  }
}

function lost() {
  return new ApiFailure("The connection was lost", "The answer is incomplete. What had come is shown; try again.");
}

async function failure(response) {
  const body = await response.json().catch(() => null);
  const detail = body?.error?.message ?? `HTTP status ${response.status} ${response.statusText}`.trim();
  const after = response.headers.get("retry-after");
  const title = TITLES[response.status] ?? (response.status < 500 ? TITLES[400] : TITLES[500]);
  return new ApiFailure(title, after ? `${detail} (try again in ${after} s)` : detail, response.status);
}
