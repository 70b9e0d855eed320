/** Calls to the server. Every failure is a `Refusal`: a sentence, its remedy and the field that it is about. */

export class Refusal extends Error {
  constructor({ error, remedy = '', field = null }, status = 0) {
    super(error);
    this.remedy = remedy;
    this.field = field;
    this.status = status;
  }
}

let first = null;

/** The first call goes alone, so that a new browser gets one session and not one for each call. */
function request(...given) {
  if (first) return first.then(() => fetch(...given));
  const answer = fetch(...given);
  first = answer.catch(() => null);
  return answer;
}

async function call(method, path, body, type) {
  const headers = { Accept: 'application/json' };
  if (method !== 'GET') headers['X-Scumble'] = '1';
  if (type) headers['Content-Type'] = type;
  let answer;
  try {
    answer = await request(path, { method, headers, body, credentials: 'same-origin' });
  } catch {
    throw new Refusal({ error: 'The studio does not answer.', remedy: 'Look whether `scumble studio` is still running.' });
  }
  if (answer.status === 401 && !location.pathname.startsWith('/login')) location.assign('/login');
  const data = answer.headers.get('Content-Type')?.includes('json') ? await answer.json() : null;
  if (answer.ok) return data;
  throw new Refusal(data?.error ? data : { error: `The studio answered ${answer.status}.`, remedy: 'Try again.' }, answer.status);
}

export const get = (path) => call('GET', path);
export const post = (path, value) => call('POST', path, JSON.stringify(value ?? {}), 'application/json');
export const cancel = (id) => call('DELETE', `/api/jobs/${id}`);

/** Hand a file to the server: `{id, name, width, height, kind, frames}`. */
export function upload(file, name = file.name ?? 'picture.png') {
  return call('POST', `/api/images?name=${encodeURIComponent(name)}`, file, 'application/octet-stream');
}

export const imageUrl = (id) => `/api/images/${id}`;
export const thumbUrl = (id) => `/api/images/${id}/thumb`;
export const downloadUrl = (id) => `/api/images/${id}?download=1`;

/** Call `seen` with the job whenever it changes; returns a function that stops listening. A stream that breaks just ends. */
export function listen(id, seen) {
  const source = new EventSource(`/api/jobs/${id}/events`);
  source.onmessage = (event) => {
    const job = JSON.parse(event.data);
    if (ended(job)) source.close();
    seen(job);
  };
  return () => source.close();
}

export const ended = (job) => ['done', 'failed', 'cancelled'].includes(job.state);
