// Before the page is drawn, so that a chosen theme does not flash. A plain script on purpose: modules come later.
try {
  const chosen = localStorage.getItem('scumble-theme');
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // without storage the system's theme it is
}
