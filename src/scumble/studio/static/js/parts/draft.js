/**
 * What is being worked on, kept for this tab alone (sessionStorage): two tabs do not disturb each other, and a page
 * that is left and opened again is as it was.
 */

export function keep(name, value) {
  try {
    sessionStorage.setItem(`scumble:${name}`, JSON.stringify(value));
    return true;
  } catch {
    return false; // full, or not allowed: the page works on without
  }
}

export function kept(name, otherwise = null) {
  try {
    return JSON.parse(sessionStorage.getItem(`scumble:${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function drop(name) {
  sessionStorage.removeItem(`scumble:${name}`);
}

/** Read something that another page left for this one, once. */
export function taken(name) {
  const value = kept(name);
  drop(name);
  return value;
}
