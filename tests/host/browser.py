"""ComfyUI's window in a real browser, driven as a person would where that is possible."""

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1500,950"
)
SECONDS = 120  # for what the window does by itself
RUN_SECONDS = 600  # for a workflow
READY = (
    "return !!(window.app && app.graph && app.canvas && app.extensionManager"
    " && LiteGraph.registered_node_types.SAGDemoModel)"
)


def missing() -> Optional[str]:
    """Why no browser can be driven here, or None."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (pip install selenium)"
    return None if chromium() and shutil.which("chromedriver") else "Chromium and chromedriver are not installed"


def chromium() -> Optional[str]:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Window:
    """A tab with ComfyUI's window in it."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.address = address

    def script(self, code: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return its value; a promise is waited for."""
        return self.driver.execute_async_script(
            f"const done = arguments[arguments.length - 1];"
            f"(async (...args) => {{ {code} }})(...arguments).then(done, error => done({{error: String(error)}}))",
            *arguments,
        )

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
        """Return the first value of `condition` that is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.3)
        raise AssertionError(f"no {what} within {seconds} s")

    def open(self) -> None:
        self.driver.get(self.address)
        self.wait(lambda: self.driver.execute_script(READY), "window")
        time.sleep(3)  # it then loads a workflow of its own

    def fit(self) -> None:
        """Show the whole graph."""
        self.script("await app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        time.sleep(2)  # it glides there

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))

    def elements(self, selector: str) -> "list[Any]":
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def clear(self) -> None:
        self.script("app.graph.clear(); app.canvas.setDirty(true, true)")

    def search(self, text: str) -> "list[str]":
        """What the node search offers, opened by a double click on the empty canvas."""
        from selenium.webdriver import ActionChains, Keys

        (canvas,) = self.elements("#graph-canvas")

        def opened() -> bool:
            self.clear()
            ActionChains(self.driver).move_to_element_with_offset(canvas, -200, 100).double_click().perform()
            time.sleep(1)
            return self.driver.switch_to.active_element.tag_name == "input"

        self.wait(opened, "search box")
        self.driver.switch_to.active_element.send_keys(text)
        self.wait(lambda: self.elements("[role=option]"), "result")
        time.sleep(1)  # the list is filled anew while one types
        # The line of a node also holds its category and its pack.
        names = [line.strip() for option in self.elements("[role=option]") for line in option.text.split("\n")]
        ActionChains(self.driver).send_keys(Keys.ESCAPE).perform()
        return names

    def add(self, node_id: str) -> None:
        """Put one node on an empty canvas."""
        self.clear()
        self.script(
            "const node = LiteGraph.createNode(args[0]); app.graph.add(node); node.pos = [350, 150];"
            "app.canvas.setDirty(true, true)",
            node_id,
        )

    def help(self, node_id: str) -> Any:
        """The help page of a node, opened by its info button."""
        from selenium.webdriver import ActionChains

        self.add(node_id)
        (canvas,) = self.elements("#graph-canvas")
        x, y = self.script(
            "const canvas = app.canvas, node = app.graph.nodes[0], size = canvas.canvas.getBoundingClientRect();"
            "const [x, y] = canvas.ds.convertOffsetToCanvas([node.pos[0] + 60, node.pos[1] - 15]);"
            "return [Math.round(x - size.width / 2), Math.round(y - size.height / 2)]"
        )
        ActionChains(self.driver).move_to_element_with_offset(canvas, x, y).click().perform()
        button = self.wait(
            lambda: [button for button in self.elements("[data-testid=info-button]") if button.is_displayed()],
            f"info button at {node_id}",
        )
        button[0].click()
        return self.wait(lambda: self.elements(".node-help-content, .comfy-markdown-content")[-1:], "help page")[0]

    def load(self, workflow: "dict[str, Any]") -> None:
        self.script("await app.loadGraphData(args[0])", workflow)

    def exported(self) -> "dict[str, Any]":
        """The graph as the window would send it to the server."""
        return self.script("return (await app.graphToPrompt()).output")

    def node_types(self) -> "list[str]":
        return self.script("return app.graph.nodes.map(node => node.type)")

    def console(self) -> "list[str]":
        """What the console has said since the last call."""
        return [f"{entry['level']} {entry['message']}" for entry in self.driver.get_log("browser")]


@contextmanager
def window(address: str):
    """Open ComfyUI's window, and close it at the end."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp()
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = chromium()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # No proxy of the environment: the driver is spoken to on the loopback address.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "localhost,127.0.0.1"
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(SECONDS)
    try:
        opened = Window(driver, address)
        opened.open()
        yield opened
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)
