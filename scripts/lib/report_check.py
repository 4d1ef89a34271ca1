"""scripts/report-check: a claims report in Chromium, looked at by rules and kept as pictures."""

import argparse
import subprocess
import sys
from pathlib import Path

import install
from process import LeftOut

# Name, width, height, pixels of the screen for one of the page, a phone's rules of layout.
SCREENS = [("desktop", 1280, 900, 1, False), ("phone", 375, 812, 2, True)]
SCHEMES = ["light", "dark"]
# summary.svg as a README shows it.
PICTURE_SCREEN = ("picture", 800, 900, 2, False)
# A picture is cut into pieces of this height, in pixels of the page.
PIECE = 3000

# Runs in the page with every fold open; returns what is wrong, in words.
RULES = """
() => {
  const wrong = [];
  const width = document.documentElement.clientWidth;
  const say = (text) => { if (wrong.length < 40) wrong.push(text); };
  if (document.documentElement.scrollWidth > width) say(`the page is ${document.documentElement.scrollWidth} px wide, the screen ${width}`);
  const words = (node) => node.textContent.trim().replace(/\\s+/g, ' ').slice(0, 60);
  for (const node of document.querySelectorAll('body *')) {
    if (node.closest('.scroll, svg')) continue;
    const box = node.getBoundingClientRect();
    if (box.width && (box.right > width + 1 || box.left < -1)) say(`beyond the screen's edge: <${node.localName}> ${words(node)}`);
    if (node.scrollWidth > node.clientWidth + 1 && node.clientWidth && getComputedStyle(node).overflowX === 'hidden')
      say(`cut off: <${node.localName}> ${words(node)}`);
  }
  const channel = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = (rgb) => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
  const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const rgb = numbers(getComputedStyle(at).backgroundColor);
      if (rgb.length === 3 || rgb[3] > 0.5) return rgb;
    }
    return [255, 255, 255];
  };
  for (const node of document.querySelectorAll('p, dt, dd, td, th, span, summary, h1, h2, h3, figcaption')) {
    if (!node.getClientRects().length || !node.textContent.trim()) continue;
    const ratio = contrast(numbers(getComputedStyle(node).color), ground(node));
    if (ratio < 4.5) say(`contrast ${ratio.toFixed(1)}: <${node.localName}> ${words(node)}`);
  }
  for (const svg of document.querySelectorAll('svg')) {
    const title = words(svg.closest('figure')?.querySelector('figcaption') ?? svg);
    const frame = svg.getBoundingClientRect();
    if (frame.width < 200 || frame.height < 100) say(`${title}: ${frame.width} by ${frame.height} px is too small`);
    const texts = [...svg.querySelectorAll('text')].filter((text) => text.textContent.trim());
    if (texts.length < 3) say(`${title}: axes without words`);
    const boxes = texts.map((text) => text.getBoundingClientRect());
    texts.forEach((text, i) => {
      const box = boxes[i];
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        say(`${title}: '${words(text)}' is cut off`);
      const scale = frame.width / (svg.viewBox.baseVal.width || frame.width);
      const size = parseFloat(getComputedStyle(text).fontSize) * scale;
      if (size < 8.5) say(`${title}: '${words(text)}' is ${size.toFixed(1)} px high`);
      const fill = numbers(getComputedStyle(text).fill);
      const under = [...svg.querySelectorAll('rect')].reverse().find((rect) => {
        const r = rect.getBoundingClientRect();
        return r.left <= box.left + 1 && r.right >= box.right - 1 && r.top <= box.top + 1 && r.bottom >= box.bottom - 1
          && numbers(getComputedStyle(rect).fill).length >= 3 && getComputedStyle(rect).fill !== 'none';
      });
      const back = under ? numbers(getComputedStyle(under).fill) : ground(svg);
      const ratio = contrast(fill, back);
      if (fill.length >= 3 && ratio < 3) say(`${title}: '${words(text)}' has contrast ${ratio.toFixed(1)}`);
      for (let j = 0; j < i; j++) {
        const other = boxes[j];
        const across = Math.min(box.right, other.right) - Math.max(box.left, other.left);
        const down = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
        if (across > 2 && down > 0.35 * Math.min(box.height, other.height))
          say(`${title}: '${words(text)}' lies over '${words(texts[j])}'`);
      }
    });
  }
  return wrong;
}
"""


def look(browser, report, out, screen, scheme):
    """Faults of one view, as lines; leaves its pictures in `out`."""
    name, width, height, scale, mobile = screen
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale, is_mobile=mobile, has_touch=mobile,
        color_scheme=scheme, offline=True,
    )
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    if report.suffix == ".svg":
        # Within a page, as the rules look at pages; nothing of its own but a margin taken away.
        page.set_content(f"<!doctype html><body style='margin: 0'>{report.read_text()}</body>")
    else:
        page.goto(report.as_uri())
    page.screenshot(path=out / f"{name}-{scheme}-0.png")
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    faults = page.evaluate(RULES)
    faults += [f"asks for {url}" for url in asked if url != report.as_uri() and not url.startswith("data:")]
    faults += [f"the browser says: {text}" for text in said]
    # Pictures as a reader sees them: with the folds closed.
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = false; })")
    total = page.evaluate("document.documentElement.scrollHeight")
    for number, top in enumerate(range(0, total, PIECE), 1):
        clip = {"x": 0, "y": top, "width": width, "height": min(PIECE, total - top)}
        page.screenshot(path=out / f"{name}-{scheme}-{number}.png", full_page=True, clip=clip)
    context.close()
    return faults


def inside(args):
    """Runs where playwright is installed; exit code 1 when something is wrong."""
    from playwright.sync_api import sync_playwright

    args.out.mkdir(parents=True, exist_ok=True)
    count = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.browser, args=["--no-sandbox"])
        for screen in [PICTURE_SCREEN] if args.report.suffix == ".svg" else SCREENS:
            for scheme in SCHEMES:
                faults = look(browser, args.report.resolve(), args.out.resolve(), screen, scheme)
                print(f"{screen[0]} {scheme}: {'fine' if not faults else f'{len(faults)} faults'}")
                for fault in faults:
                    print(f"  {fault}")
                count += len(faults)
        browser.close()
    print(f"pictures: {args.out}")
    return 1 if count else 0


def main():
    """Installs a browser and what drives it, then looks."""
    parser = argparse.ArgumentParser(prog="scripts/report-check", description=__doc__)
    parser.add_argument("report", type=Path, help="report.html or summary.svg of scripts/claims")
    parser.add_argument("--out", type=Path, default=Path("report-pictures"), help="folder for pictures")
    parser.add_argument("--browser", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.report.is_file():
        sys.exit(f"report-check: {args.report} is not there")
    if args.browser:
        return inside(args)
    try:
        browser = install.apt("chromium", "chromium")
        python = install.python("report")
    except LeftOut as reason:
        sys.exit(f"report-check: {reason}")
    command = [python, "-B", __file__, args.report, "--out", args.out, "--browser", browser]
    return subprocess.run([str(word) for word in command], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
