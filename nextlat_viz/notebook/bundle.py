"""plotly's code for the page, sent once per kernel and run once per page, however many figures there are."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import ClassVar

import ipywidgets
import plotly
from traitlets import Unicode

from nextlat_viz.notebook._plotly import basewidget

# Appended to plotly's bundle. A figure takes the width of its cell, now and when that changes. It does not send every
# computed attribute of every trace back after each change, which plotly then deletes from the figure's own. And the
# outline of a selection goes when it has been reported: it would overrule at every redraw what is selected elsewhere.
# There is one slot for what the mouse does, and what a busy kernel has not read yet is overwritten in it; so hovering
# is not reported, and of clicks and selections each waits until the one before it has been read.
_PATCH = """
;(view => {
  const draw = view.perform_render, remove = view.remove;
  view.perform_render = function () {
    // The page's model keeps every outline, also one that was reported long ago and is gone; it hands out copies.
    const {model} = this, {get} = model;
    model.get = name => {
      const value = get.call(model, name);
      if (name === "_widget_layout") delete value?.selections;
      return value;
    };
    draw.call(this);
    delete model.get;
    this.fit = new ResizeObserver(() => {
      const {layout, _fullLayout, offsetWidth} = this.el;
      if (!_fullLayout || !offsetWidth) return;
      // With a new height plotly keeps the width it has just then.
      if (!this.model.get("_widget_layout")?.width) {
        delete layout.width;
        layout.autosize = true;
      }
      this.autosizeFigure();
    });
    this.fit.observe(this.el);
  };
  view.remove = function () { this.fit.disconnect(); remove.call(this); };
  view._sendLayoutDelta = () => {};
  view.handle_plotly_hover = view.handle_plotly_unhover = () => {};
  const SLOT = "_js2py_pointsCallback", report = view._send_points_callback_message;
  view._send_points_callback_message = function (event, type) {
    if (!this.waiting) {
      this.waiting = [];
      this.next = () => {
        while (this.waiting.length && !this.model.get(SLOT)?.event_type) report.apply(this, this.waiting.shift());
      };
      this.model.on(`change:${SLOT}`, this.next);
    }
    this.waiting.push([event, type]);
    this.next();
  };
  view._sendTraceDeltas = function (edit) {
    this.model.set("_js2py_traceDeltas", {trace_deltas: [], trace_edit_id: edit});
    this.touch();
  };
  const {
    do_relayout: relayout, handle_plotly_relayout: noted, handle_plotly_selected: selected,
    handle_plotly_deselect: deselect,
  } = view;
  view.handle_plotly_selected = function (event) {
    // Taking an outline away is announced as a selection of nothing, some time later.
    if (this.clearing) return;
    selected.call(this, event);
    setTimeout(() => {
      if (this.clearing || !this.el.layout?.selections?.length) return;
      this.clearing = true;
      const model = {get: () => ({relayout_data: {selections: []}})};
      relayout.call({model, el: this.el, viewID: this.viewID, _sendLayoutDelta() {}});
    }, 50);
  };
  view.handle_plotly_deselect = function (event) {
    if (!this.clearing) deselect.call(this, event);
  };
  view.handle_plotly_relayout = function (event) {
    if (event?.selections?.length === 0) this.clearing = false;
    noted.call(this, event);
  };
})(VIEW.prototype);
"""

# What each figure brings along instead of the bundle. anywidget gives a model two seconds to start, which five
# megabytes exceed on a busy machine; so starting is only asking for them.
LOADER = """
const bundles = (globalThis.nextlat_viz_bundles ??= {});

async function load(model) {
  const library = await model.widget_manager.get_model(model.get("_library"));
  const url = URL.createObjectURL(new Blob([library.get("text")], {type: "text/javascript"}));
  try { return await import(url); } finally { URL.revokeObjectURL(url); }
}

export default () => {
  let figure;
  return {
    initialize({model}) {
      const key = model.get("_bundle");
      figure = (bundles[key] ??= load(model)).then(bundle => {
        const made = bundle.default();
        made.initialize({model});
        return made;
      });
      figure.catch(() => { delete bundles[key]; });
    },
    async render(context) {
      try {
        return (await figure).render(context);
      } catch (error) {
        context.el.setAttribute("role", "alert");
        context.el.textContent = `This figure could not be drawn: ${error.message}`;
      }
    },
  };
};
"""


@cache
def bundle() -> str:
    """Return plotly's widget bundle with the patch."""
    path = Path(basewidget.__file__).parent / "package_data" / "widgetbundle.js"
    text = path.read_text(encoding="utf-8")
    exported = re.search(r"export\s*\{[^}]*?([\w$]+) as FigureView\b", text)
    if exported is None:
        raise ImportError(f"plotly {plotly.__version__} draws figures in another way than plotly 7: install plotly 7.1")
    return text + _PATCH.replace("VIEW", exported[1])


@cache
def bundle_key() -> str:
    """Name the bundle on the page, where another version may be at work too."""
    return hashlib.sha256(bundle().encode()).hexdigest()[:16]


class Library(ipywidgets.Widget):
    """Carries the bundle to the page. There is one while any figure is open."""

    text = Unicode().tag(sync=True)
    _shared: ClassVar[Library | None] = None
    _users: ClassVar[int] = 0

    @classmethod
    def borrow(cls) -> Library:
        """Return the library; give it back with `give_back`."""
        if cls._shared is None:
            cls._shared = cls(text=bundle())
        cls._users += 1
        return cls._shared

    @classmethod
    def give_back(cls) -> None:
        """Close the library when nobody uses it any more."""
        cls._users -= 1
        if cls._users == 0 and cls._shared is not None:
            cls._shared.close()
            cls._shared = None
