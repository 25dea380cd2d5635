// What a reader of the open notebook would stumble over, a sentence each.
height => {
  const found = [];
  const panel = jupyterapp.shell.currentWidget;
  const visible = node => node.offsetParent !== null && node.getClientRects().length > 0;
  for (const cell of panel.content.widgets) {
    const name = cell.model.id, node = cell.node;
    const say = text => found.push(`${name}: ${text}`);
    const all = selector => [...node.querySelectorAll(selector)].filter(visible);

    if (cell.model.type === "code") {
      for (const code of all(".jp-InputArea .cm-scroller")) {
        const over = code.scrollWidth - code.clientWidth;
        if (over > 1) say(`code is cut off by ${over} pixels`);
      }
      const outputs = [...Array(cell.model.outputs.length).keys()].map(i => cell.model.outputs.get(i));
      const kinds = outputs.flatMap(output => Object.keys(output.data || {}));
      const pictures = kinds.filter(kind => kind.startsWith("image/")).length;
      const hidden = cell.outputHidden;
      const meant = (cell.model.getMetadata("tags") || []).includes("tall");  // with need
      if (outputs.some(output => output.type === "error")) say("an error");
      if (all('[data-mime-type="application/vnd.jupyter.stderr"]').length) say("text on stderr");
      if (!hidden && all(".jp-RenderedImage img").length + all(".jupyter-widgets").length < pictures)
        say("a figure is not there");
      for (const output of all(".jp-OutputArea-output")) {
        const tall = output.getBoundingClientRect().height;
        if (tall > height && !meant) say(`an output is ${Math.round(tall)} pixels tall`);
        const over = output.scrollWidth - output.clientWidth;
        if (over > 1) say(`an output is cut off by ${over} pixels`);
      }
      if (/Error displaying widget|Loading widget/.test(node.textContent)) say("a widget is missing");
    } else {
      const text = node.querySelector(".jp-RenderedMarkdown")?.textContent || "";
      if (/\$\$|\\frac|\\text\{/.test(text)) say("a formula is not set");
      if (node.querySelector("mjx-merror")) say("a formula has an error");
      for (const table of all(".jp-RenderedMarkdown"))
        if (table.scrollWidth - table.clientWidth > 1) say("text is cut off");
    }
    for (const image of all("img"))
      if (!image.complete || image.naturalWidth === 0) say("a picture is broken");
  }
  return found;
}
