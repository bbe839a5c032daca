#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# why, metrics and status --watch say what the module knows; a real Prometheus
# scrapes the metrics, and the dashboard asks for nothing else.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'END'
import http.server
import json
import pty
import select
import signal
import termios
import urllib.parse
import urllib.request
import uuid
from rig import *
from store import Store

rng = random.Random(0x215)
FRAME = 64 * KIB
content = rng.randbytes(512 * KIB)
layer = layer_of(content, ZSTD, FRAME, locator="http://origin/some/object")
DASHBOARD = os.path.join(os.path.dirname(sys.path[1]), "..", "helper",
                         "grafana-dashboard.json")


def lazyframe(*args, status=0):
    done = subprocess.run(("lazyframe",) + args, capture_output=True,
                          text=True, timeout=patience(20))
    assert done.returncode == status, done
    return done.stderr if status else done.stdout


def used(**kw):
    """A device with a store from which reads of all kinds were made."""
    store = Store()
    device = Device([layer], [(0, 512 * KIB, 0, 0)], 1 * MIB, store=store,
                    **kw)
    device.server = Server(layer)
    device.store = store
    for i in (3, 1, 5):
        device.check(i * FRAME, 4096)
    device.check(3 * FRAME + 8192, 4096)
    device.check(700 * KIB, 4096)
    return device


# ---------------------------------------------------------------- why

@test("why: nothing waits")
def _():
    device = Device([layer])
    text = lazyframe("why", device.name)
    assert re.match(r"helper   none for .*\nwaiting  0 reads\n$", text), text


@test("why: whose fault it is, how old, and which object")
def _():
    device = Device([layer])
    readers = [Reader(device, 3 * FRAME + 512, 512)]
    waiting(device)
    time.sleep(0.2)
    readers.append(Reader(device, 5 * FRAME, 512))
    waiting(device, 2)

    def faults():
        told = json.loads(lazyframe("why", device.name, "--json"))
        assert told["waiting"] == len(told["reads"]) == 2
        ages = [r["age_ms"] for r in told["reads"]]
        assert ages == sorted(ages, reverse=True), ages
        return told, [(r["state"], r["fault"]) for r in told["reads"]]

    told, what = faults()
    assert told["helper"] == "none" and told["helper_silent_ms"] is None
    assert what == [("helper", "helper")] * 2, what
    first = told["reads"][0]
    assert first["u_offset"] == 3 * FRAME + 512, first
    assert first["c_offset"] == layer.frames[3][1], first
    assert first["length"] == layer.frames[3][3] and not first["have"]
    assert first["layer"] == str(uuid.UUID(bytes=layer.uuid))
    assert first["object"] == layer.locator.decode()
    text = lazyframe("why", device.name)
    say(text)
    for words in ("helper   none for", "waiting  2 reads", first["layer"],
                  "no helper is attached: start lazyframed",
                  "is http://origin/some/object\n"):
        assert words in text, words
    hand = Hand()
    wait_until(lambda: faults()[1] == [("posted", "helper")] * 2)
    head = faults()[0]
    assert head["helper"] == "attached" and head["helper_silent_ms"] >= 1000
    requests = hand.next(2)
    assert faults()[1] == [("taken", "origin")] * 2
    text = lazyframe("why", device.name)
    say(text)
    assert "no byte came yet" in text
    data = layer.object[requests[0].offset:][:requests[0].length]
    hand.fill(requests[0], data[:1000])
    assert sorted(faults()[1]) == [("receiving", "origin"),
                                   ("taken", "origin")]
    assert f"1000 of {requests[0].length}\n" in lazyframe("why", device.name)
    # one that takes nothing more has stopped, whatever it took
    readers.append(Reader(device, 1 * FRAME, 512))
    waiting(device, 3)
    wait_until(lambda: {r["fault"] for r in json.loads(lazyframe(
        "why", device.name, "--json"))["reads"]} == {"helper"})
    hand.fill(requests[0], data[1000:], offset=1000)
    hand.answer(requests[1], {layer.uuid: layer})
    hand.answer(hand.next(), {layer.uuid: layer})
    for reader in readers:
        reader.good()


@test("why: wrong use, and devices that are none of ours")
def _():
    assert "no device nobody" in lazyframe("why", "nobody", status=1)
    lazyframe("why", status=2)
    lazyframe("why", "a", "b", status=2)
    other = Mapped("zero", 1 * MIB, "")
    assert "is no lazyframe device" in lazyframe("why", other.name, status=1)


# ---------------------------------------------------------------- metrics

SAMPLE = re.compile(r'(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? '
                    r'([0-9.+\-e]+)$')


def parse(text, openmetrics=True):
    """{(name, labels): value}, strictly."""
    out, family, kind, seen = {}, None, None, set()
    lines = text.splitlines()
    if openmetrics:
        assert lines.pop() == "# EOF"
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in seen, f"{family} comes twice"
            seen.add(family)
            assert line.endswith("."), line
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family, line
            kind = line.split()[3]
        else:
            found = SAMPLE.match(line)
            assert found, line
            ends = {"gauge": ("",), "counter":
                    ("_total",) if openmetrics else ("",),
                    "histogram": ("_bucket", "_count", "_sum")}[kind]
            assert found[1] in [family + end for end in ends], (family, line)
            key = found[1], tuple(sorted(re.findall(
                r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or "")))
            assert key not in out, line
            out[key] = float(found[3])
    return out


def value(samples, name, **labels):
    return samples["lazyframe_" + name, tuple(sorted(labels.items()))]


@test("metrics: each number is the one of sysfs and dmsetup")
def _():
    device = used()
    device.store.settled(3)
    got = parse(lazyframe("metrics"))
    s = device.stats()
    name = device.name
    for source, stat in (("overlay", "reads_overlay"),
                         ("origin", "reads_origin"), ("zero", "reads_zero"),
                         ("memory", "reads_memory"), ("store", "reads_store"),
                         ("fetch", "reads_fetched"),
                         ("failed", "reads_failed")):
        assert value(got, "reads_total", device=name, source=source) == s[stat]
    for metric, stat in (("read_bytes_total", "read_bytes"),
                         ("reads_waiting", "waiting"),
                         ("frames_bad_total", "frames_bad"),
                         ("prefetch_bytes_total", "prefetch_bytes"),
                         ("commits_total", "commits")):
        assert value(got, metric, device=name) == s[stat], metric
    for metric, stat in (("requests_total", "requests"),
                         ("fetched_bytes_total", "fill_bytes"),
                         ("helper_attached", "helper"),
                         ("cache_limit_bytes", "cache_limit"),
                         ("decodes_total", "decodes")):
        assert value(got, metric) == module(stat) > 0, metric
    assert value(got, "device_size_bytes", device=name) == 1 * MIB
    assert value(got, "overlay_mode", device=name, mode="none") == 1
    store, info = device.store.name, device.store.info()
    assert value(got, "store_used_bytes", store=store) == info["used"] * 512
    assert value(got, "store_size_bytes", store=store) == info["room"] * 512
    assert value(got, "store_memory_bytes", store=store) == info["memory"]
    assert value(got, "store_lookups_total", store=store,
                 result="miss") == info["misses"]
    assert value(got, "store_stored_total", store=store) == 3
    for metric, labels, there in (
            ("read", {"device": name, "source": "fetch"},
             device.latency("fetch")),
            ("read", {"device": name, "source": "memory"},
             device.latency("hit")),
            ("step", {"step": "decode"}, step("decode"))):
        metric += "_duration_seconds"
        total = 0
        for le, n in there[0]:
            total += n
            text = "+Inf" if le == float("inf") else f"{le / 1e6:.9g}"
            assert value(got, metric + "_bucket", le=text, **labels) == total
        assert total and value(got, metric + "_count", **labels) == total
        assert abs(value(got, metric + "_sum", **labels) -
                   there[1] / 1e9) < 1e-8


@test("metrics: labels are escaped, and UTF-8")
def _():
    device = Device([layer])
    # Latin-1, a form that is too long, half of a surrogate pair, a part at the end
    bad = b"\xe9 \xc0\xaf \xed\xa0\x80 \xe2\x82"
    strange = device.path + '-"quoted\\é€😀'
    broken = os.fsencode(strange) + bad + b"\nbroken"
    os.rename(device.path, broken)
    undo(lambda: os.rename(broken, device.path))
    strange += "? ?? ??? ??"
    samples = parse(lazyframe("metrics"))
    info = [dict(labels) for name, labels in samples
            if name == "lazyframe_device_info"]
    assert len(info) == 1, info
    text = info[0]["meta"].replace('\\"', '"').replace("\\n", "\n") \
        .replace("\\\\", "\\")
    # what sysfs has of the name ends with its first line
    assert text == strange, (text, strange)


@test("metrics: without a device, and without any that is ours")
def _():
    assert ("lazyframe_cache_frames", ()) in parse(lazyframe("metrics"))
    Mapped("zero", 1 * MIB, "")
    assert not [n for n, labels in parse(lazyframe("metrics")) if labels and
                "step" not in dict(labels)]


@test("metrics --textfile: promtool is content; a reader never finds a part")
def _():
    device = used()
    folder = tempfile.mkdtemp()
    path = f"{folder}/lazyframe.prom"
    lazyframe("metrics", "--textfile", path)
    with open(path) as f:
        got = parse(f.read(), False)
    assert value(got, "reads_total", device=device.name, source="fetch") == 3
    with open(path) as f:
        done = subprocess.run(("promtool", "check", "metrics"), stdin=f,
                              capture_output=True, text=True)
    assert not done.returncode and not done.stdout and not done.stderr, done
    assert os.stat(path).st_mode & 0o777 == 0o644
    with open(path) as f:
        size = len(f.read())
    writer = Later(lambda: [lazyframe("metrics", "--textfile", path)
                            for _ in range(3)])
    while not writer.done():
        with open(path) as f:
            assert len(f.read()) >= size - 64
    writer.good()
    assert os.listdir(folder) == ["lazyframe.prom"]
    said = lazyframe("metrics", "--textfile", f"{folder}/no/such", status=1)
    assert f"{folder}/no/such" in said and "No such file" in said, said
    os.mkdir(f"{folder}/taken")
    lazyframe("metrics", "--textfile", f"{folder}/taken", status=1)
    assert sorted(os.listdir(folder)) == ["lazyframe.prom", "taken"]


def dashboard():
    with open(DASHBOARD) as f:
        return json.load(f)


def dashboard_exprs():
    out = []
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            out.append(re.sub(r"\$\w+", lambda m: "1m" if "rate" in m[0]
                              else ".*", target["expr"]))
    return out


class Exporter(http.server.BaseHTTPRequestHandler):
    """What the manual page has socat or a web server do."""

    def do_GET(self):
        body = lazyframe("metrics").encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; "
                         "version=1.0.0; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def query(text):
    """[(labels, value)] of Prometheus' answer; none while it starts."""
    try:
        with urllib.request.urlopen(
                "http://127.0.0.1:9090/api/v1/query?" +
                urllib.parse.urlencode({"query": text})) as answer:
            told = json.load(answer)
    except (urllib.error.HTTPError, OSError):
        return []
    assert told["status"] == "success", told
    return [(r["metric"], float(r["value"][1])) for r in
            told["data"]["result"]]


@test("a real Prometheus scrapes them", 120)
def _():
    device = used()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 9091), Exporter)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    undo(server.server_close)
    undo(server.shutdown)
    folder = tempfile.mkdtemp()
    with open(f"{folder}/prometheus.yml", "w") as f:
        f.write("global: {scrape_interval: 2s, scrape_timeout: 2s}\n"
                "scrape_configs:\n"
                "- job_name: lazyframe\n"
                "  static_configs: [{targets: ['127.0.0.1:9091']}]\n")
    with open(f"{folder}/log", "w") as log:
        prometheus = subprocess.Popen(
            ("prometheus", f"--config.file={folder}/prometheus.yml",
             f"--storage.tsdb.path={folder}/data",
             "--web.listen-address=127.0.0.1:9090"),
            stdout=log, stderr=subprocess.STDOUT)
    undo(prometheus.wait)
    undo(prometheus.kill)
    try:
        wait_until(lambda: query('lazyframe_reads_total{source="fetch"}'),
                   "sample", 100)
    except AssertionError:
        with open(f"{folder}/log") as f:
            say(f.read())
        raise
    labels, n = query(
        f'lazyframe_reads_total{{source="fetch",device="{device.name}"}}')[0]
    assert n == 3 and labels["job"] == "lazyframe", (labels, n)
    assert query("up") and query("up")[0][1] == 1
    s = device.stats()
    assert query("sum(lazyframe_reads_total)")[0][1] == s["reads"]
    quantile = query("histogram_quantile(0.99, "
                     "lazyframe_read_duration_seconds_bucket"
                     '{source="fetch"})')[0][1]
    assert 1e-6 < quantile < 70, quantile
    assert query("lazyframe_store_size_bytes")[0][1] > 0
    kinds = urllib.request.urlopen(
        "http://127.0.0.1:9090/api/v1/metadata")
    kinds = json.load(kinds)["data"]
    for name, kind in (("lazyframe_reads", "counter"),
                       ("lazyframe_cache_bytes", "gauge"),
                       ("lazyframe_read_duration_seconds", "histogram")):
        assert kinds[name][0]["type"] == kind, kinds.get(name)
    # every question of the dashboard is one that it can be asked
    for expr in dashboard_exprs():
        query(expr)


@test("the dashboard asks for metrics that there are, with labels they have")
def _():
    used()
    there = {}
    for name, labels in parse(lazyframe("metrics")):
        there.setdefault(name, {"instance"}).update(k for k, _ in labels)
    names = set()
    for expr in dashboard_exprs():
        for name, labels in re.findall(r"(lazyframe_\w+)(?:\{([^}]*)\})?",
                                       expr):
            assert name in there, name
            names.add(name)
            for key in re.findall(r'(\w+)[=!]', labels):
                assert key in there[name], (name, key)
        for by in re.findall(r"by \(([^)]*)\)", expr):
            assert any(set(by.replace(",", " ").split()) <= there[n]
                       for n in re.findall(r"lazyframe_\w+", expr)), expr
    for variable in dashboard()["templating"]["list"]:
        name = re.search(r"lazyframe_\w+", variable["definition"])[0]
        assert name in there, name
    say(f"{len(names)} metrics in {len(dashboard()['panels'])} panels")


# ---------------------------------------------------------------- --watch

class Terminal:
    """lazyframe status --watch on a terminal."""

    def __init__(self, device):
        master, slave = pty.openpty()
        self.fd, self.text = master, ""
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.child = subprocess.Popen(
            ("lazyframe", "status", "--watch", device.name), stdin=slave,
            stdout=slave, stderr=slave)
        undo(self.close)

    def until(self, words, limit=20):
        end = time.monotonic() + patience(limit)
        while not re.search(words, self.text):
            assert time.monotonic() < end, (words, self.text)
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 65536).decode()

    def ended(self, status=0):
        """The terminal is as it was, its first screen and cursor too."""
        assert self.child.wait(patience(10)) == status
        self.until(r"\x1b\[\?25h\x1b\[\?1049l")
        assert termios.tcgetattr(self.slave) == self.before

    def close(self):
        self.child.kill()
        self.child.wait()
        os.close(self.fd)
        os.close(self.slave)


for how, end in (("q", lambda t: os.write(t.fd, b"q")),
                 ("Ctrl-C", lambda t: os.write(t.fd, b"\x03"))):
    @test(f"status --watch shows rates on a terminal, and {how} ends it")
    def _():
        device = Device([layer])
        reader = Reader(device, 0, 512)
        terminal = Terminal(device)
        terminal.until(r"waiting +1 ")
        terminal.until("no helper")
        raw = termios.tcgetattr(terminal.slave)
        assert not raw[3] & (termios.ICANON | termios.ECHO)
        Server(layer)
        reader.good()
        terminal.until("helper attached")
        terminal.until(r"fetch +1 ")
        terminal.until(r"waiting +0 ")
        end(terminal)
        terminal.ended()


@test("status --watch ends with its device, the terminal as it was")
def _():
    device = Device([layer])
    terminal = Terminal(device)
    terminal.until("no helper")
    device.remove()
    terminal.ended(1)
    terminal.until("there is no device")


@test("status --watch without a terminal prints lines; SIGINT ends it")
def _():
    device = Device([layer])
    Server(layer)
    child = subprocess.Popen(("lazyframe", "status", "--watch", device.name),
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             text=True)
    undo(child.stdout.close)
    undo(child.kill)
    assert child.stdout.readline().split() == [
        "READS/S", "READ/S", "HITS", "WRITES/S", "FETCHED/S", "WAITING",
        "HELPER"]
    line = child.stdout.readline()
    assert line.split()[-2:] == ["0", "attached"] and "\x1b" not in line, line
    for i in range(50):
        device.check(i % 8 * FRAME, 512)
    lines = [child.stdout.readline().split() for _ in range(2)]
    assert any(float(words[0]) > 0 for words in lines), lines
    child.send_signal(signal.SIGINT)
    assert child.wait(patience(10)) == 0


finish()
END
finish
