#!/usr/bin/env python3
"""A soak by hand: the release binary with thousands of runs that come and go, and faults at both ends.

    cargo build --release && benches/soak/soak.py --seconds 3600

Starts `runwatch simulate` with faults, a receiver that fails, and `runwatch daemon`, all on loopback. Half of the runs are
added by `runwatch add`, and discovery finds the others. The daemon is killed now and then. At the end the API's own account
is compared with the state and with what the receiver got. Stops by itself: one line every ten seconds, then the verdict.
"""
import argparse, collections, http.server, json, os, pathlib, random, signal, subprocess, sys, tempfile, threading, time
import urllib.request

KINDS = {"SUCCEEDED": "run.succeeded", "FAILED": "run.failed", "CANCELED": "run.canceled"}
FAULTS = ["503=3%", "500=2%", "429=1%", "404=1%", "403=0.5%", "reset=2%", "truncate=2%", "html=1%"]


class Receiver(http.server.ThreadingHTTPServer):
    """Takes most events. Refuses some, asks to wait, hangs, and takes some without saying so."""

    daemon_threads = True

    def __init__(self, seed):
        super().__init__(("127.0.0.1", 0), Handler)
        self.dice, self.lock = random.Random(seed), threading.Lock()
        self.events, self.requests, self.wrong = {}, 0, []
        self.ends = collections.defaultdict(set)

    def take(self, event_id, body):
        event = json.loads(body)
        with self.lock:
            first = self.events.setdefault(event_id, body)
            if first != body:
                self.wrong.append(f"{event_id} came with other bytes")
            if event["type"] in KINDS.values() or event["type"] == "run.lost":
                self.ends[event["data"]["run_id"]].add((event["type"], event_id))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.requests += 1
            dice = self.server.dice.random()
        if dice < 0.08:
            return self.answer(500)
        if dice < 0.09:
            return self.answer(429, "1")
        if dice < 0.10:
            return self.answer(503, "2")
        if dice < 0.101:
            time.sleep(20)
        self.server.take(self.headers["webhook-id"], body)
        if dice < 0.13:
            self.close_connection = True
            return
        self.answer(204)

    def answer(self, status, retry_after=None):
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def simulated(args, dice):
    """The runs of the whole time: about `--runs` of them are active at once."""
    total, length = args.runs * 3, args.seconds / 4
    for n in range(total):
        after = (args.seconds - 2 * length) * n / total
        duration = length * (0.2 + 1.6 * dice.random())
        end = dice.choice(["succeeded", "succeeded", "failed", "canceled"])
        yield f"5eed0000-0000-4000-8000-{n:012}", after, f"end={end},samples=20,queue=1s,duration={duration:.0f}s"


def resident_mb(process):
    try:
        lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS")), 0.0)


def listed(url, runs):
    """The API's own account, read until no fault is in the way."""
    request = urllib.request.Request(f"{url}/api/dataframer/runs/", headers={"Authorization": "Bearer k"})
    for _ in range(200):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found = {run["id"]: run["status"] for run in json.load(answer)}
            if set(runs) <= set(found):
                return found
        except (OSError, ValueError):
            time.sleep(0.1)
    sys.exit("the simulated API gave no list")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=900)
    parser.add_argument("--runs", type=int, default=2000, help="active at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-every", type=int, default=120, help="seconds; 0 for never")
    parser.add_argument("--binary", default="target/release/runwatch")
    args = parser.parse_args()
    dice, dir = random.Random(args.seed), pathlib.Path(tempfile.mkdtemp(prefix="runwatch-soak-"))
    runs = list(simulated(args, dice))
    command = [args.binary, "simulate", "--listen", "127.0.0.1:0", "--retry-after", "2s", "--seed", str(args.seed)]
    command += [f"--fault={fault}" for fault in FAULTS]
    command += [f"--run=id={id},{rest},after={after:.0f}s" for id, after, rest in runs]
    api = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = api.stdout.readline().split()[-1]
    threading.Thread(target=api.stdout.read, daemon=True).start()
    receiver = Receiver(args.seed)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    retries = ", ".join(['"500ms"', '"1s"', '"2s"'] + ['"5s"'] * 30)
    (dir / "config.toml").write_text(
        f'state_dir = "{dir}/state"\n[poll]\nrequests_per_minute = 6000\nmax_in_flight = 16\nerror_max_interval = "10s"\n'
        f'[delivery]\nretry_delays = [{retries}]\n[discover]\ninterval = "10s"\n[log]\nlevel = "error"\n'
        f'[[notify.webhook]]\nurl = "http://127.0.0.1:{receiver.server_port}/"\nunsigned = true\n'
    )
    environment = {"PATH": os.environ["PATH"], "DATAFRAMER_API_KEY": "k", "DATAFRAMER_BASE_URL": url}
    environment |= {"RUNWATCH_CONFIG": str(dir / "config.toml"), "RUNWATCH_SOCKET": str(dir / "socket"), "HOME": str(dir)}
    log = open(dir / "log", "w")
    run = lambda *words: subprocess.run([args.binary, *words], env=environment, capture_output=True, text=True)
    start = lambda: subprocess.Popen([args.binary, "daemon"], env=environment, stdout=log, stderr=log)
    daemon, began = start(), time.monotonic()
    kills, residents, to_add, tick = 0, [], collections.deque(runs[::2]), 0
    try:
        while True:
            passed = time.monotonic() - began
            told = len(receiver.ends)
            if passed > args.seconds + 300 or passed > args.seconds / 2 and told == len(runs):
                break
            due = []
            while to_add and to_add[0][1] + 1 < passed and len(due) < 200:
                due.append(to_add.popleft())
            if due and run("add", *[id for id, _, _ in due]).returncode != 0:
                to_add.extendleft(reversed(due))
            if args.kill_every and passed > (kills + 1) * args.kill_every and passed < args.seconds:
                daemon.send_signal(signal.SIGKILL)
                daemon.wait()
                kills, daemon = kills + 1, start()
            elif daemon.poll() is not None:
                sys.exit(f"the daemon ended with {daemon.returncode}; see {dir}/log")
            if passed >= tick * 10:
                tick += 1
                residents.append(resident_mb(daemon))
                active = sum(after <= passed for _, after, _ in runs) - told
                print(f"{passed:5.0f} s  {active:5} active  {told:5} told  {residents[-1]:5.1f} MB  {kills} kills", flush=True)
            time.sleep(1)
        account = listed(url, [id for id, _, _ in runs])
        state = json.loads(run("list", "--all", "-o", "json").stdout or "{}")
        known = {one["id"]: one["status"] for one in state.get("runs", [])}
        daemon.terminate()
        stopped = daemon.wait(30)
    finally:
        for process in (daemon, api):
            process.kill()
            process.wait()
    wrong = list(receiver.wrong)
    for id, _, _ in runs:
        ends = receiver.ends.get(id, set())
        if {kind for kind, _ in ends} != {KINDS.get(account[id])} or len(ends) != 1:
            wrong.append(f"{id} is {account[id]} and was told as {sorted(ends)}")
        if known.get(id) != account[id]:
            wrong.append(f"{id} is {account[id]} and stored as {known.get(id)}")
    if stopped != 0:
        wrong.append(f"the daemon stopped with {stopped}")
    print("\n".join(wrong[:20]))
    half = len(residents) // 2
    print(
        f"{len(runs)} runs, {kills} kills, {receiver.requests} requests to the receiver, {len(receiver.events)} events; "
        f"most resident in the first half {max(residents[:half]):.1f} MB, in the second {max(residents[half:]):.1f} MB, "
        f"at the end {residents[-1]:.1f} MB; {len(wrong)} differences"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
