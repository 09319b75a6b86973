// Before anything is drawn: the colours that the reader chose on an earlier visit.
try {
  const theme = localStorage.getItem("deltah-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Some browsers keep nothing for pages from disk.
}
