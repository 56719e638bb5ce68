// The request's body, and the command line that sends the same.

/** The body of a request, of the form's values. */
export function requestBody({ model, prompt, mode, width, depth, maxTokens, temperature }) {
  const parallel = { mode, ...(mode === "off" ? {} : { max_depth: depth, stream_branches: true }) };
  if (mode === "force" && width) parallel.width = width;
  return {
    model,
    messages: [{ role: "user", content: prompt }],
    max_completion_tokens: maxTokens,
    temperature,
    stream: true,
    parallel,
  };
}

/** For a POSIX shell. The key itself is never shown: put it into the variable KEY. */
export function curlCommand(body, keyed) {
  const lines = [
    `curl -N ${quoted(new URL("v1/chat/completions", document.baseURI).href)}`,
    `-H 'content-type: application/json'`,
    ...(keyed ? [`-H "authorization: Bearer $KEY"`] : []),
    `-d ${quoted(lined(body))}`,
  ];
  return lines.join(" \\\n  ");
}

/** A line per field. */
function lined(body) {
  const fields = Object.entries(body).map(([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  return `{\n${fields.join(",\n")}\n  }`;
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
