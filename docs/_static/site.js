// Figures were laid out for the width of the window at load; plotly follows resizes itself.
// A frame of an episode is as high as its page.
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe.nlv-episode")) {
    const fit = () => {
      const page = frame.contentDocument?.documentElement;
      if (page) frame.style.height = `${Math.max(480, page.scrollHeight + 4)}px`;
    };
    frame.addEventListener("load", () => setTimeout(fit, 300));
    fit();
  }
});
