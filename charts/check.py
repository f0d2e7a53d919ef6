"""The rules for charts, alerts, runbooks and dashboards that no tool of others knows.

    check.py ROOT RENDERED

ROOT is the repository, RENDERED a folder with each set of values rendered as `<chart>.<preset>.yaml`.
Prints what is wrong, a line each, and ends with 1 if anything is.
"""

import json
import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(sys.argv[1])
RENDERED = pathlib.Path(sys.argv[2])
CHARTS = ["quokka", "quokka-operator"]
RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]
# Where each pod's program is written; what all share is in LIBRARIES.
PROGRAMS = {
    "gateway": "services/gateway/src",
    "users": "services/users/src",
    "promotions": "services/promotions/src",
    "promotions-ledger": "services/promotions/src",
    "stays": "services/stays/src",
    "booking": "services/booking/src",
    "orders": "services/orders/src",
    "payments": "services/payments/src",
    "operator": "operator/src",
}
LIBRARIES = "libs"
# Series that Prometheus itself makes.
OF_PROMETHEUS = {"up", "ALERTS"}
# What the client library exports of every process.
OF_PROCESSES = {"process_cpu_seconds_total", "process_resident_memory_bytes"}

problems = []


def wrong(where, what):
    problems.append(f"{where}: {what}")


def read_yaml(path):
    return yaml.safe_load(path.read_text())


def rust(folder):
    """The Rust source under a folder of the repository, tests left out."""
    files = sorted((ROOT / folder).rglob("*.rs"))
    return "\n".join(f.read_text() for f in files if "tests" not in f.relative_to(ROOT).parts)


# Values: each one declared is used, each one used is declared.


def leaves(tree, path=()):
    """The paths and values of a tree; an empty map is a leaf."""
    if isinstance(tree, dict) and tree:
        for key, below in tree.items():
            yield from leaves(below, (*path, key))
    else:
        yield path, tree


def with_leaf(tree, path, value):
    """A copy of the tree in which the path has another value."""
    key, *rest = path
    return {**tree, key: with_leaf(tree[key], rest, value) if rest else value}


def render(chart, values):
    """The chart rendered with values of any kind, without its schema and without the hashes of what it holds."""
    command = ["helm", "template", chart, ROOT / "charts" / chart, "--skip-schema-validation", "--values", "-"]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    if done.returncode:
        wrong(f"charts/{chart}", f"can't be rendered: {done.stderr.strip()}")
    return re.sub(r"checksum/config: \w+", "", done.stdout)


def mark(number, value):
    """A value like this one, that is found again in what is rendered, and the text by which it is found."""
    text = f"mark{number}"
    if isinstance(value, dict):
        return {text: text}, text
    if isinstance(value, list):
        inside, text = mark(number, value[0]) if value else (text, text)
        return [inside], text
    if isinstance(value, (int, float)):
        return 70000 + number, str(70000 + number)
    return text, text


def check_declared_values_are_used(chart):
    """Each value is replaced by a mark, which must then be seen; each switch must change what is rendered."""
    values = read_yaml(ROOT / "charts" / chart / "values.yaml")
    on, off, marks = values, values, {}
    for number, (path, value) in enumerate(leaves(values)):
        if isinstance(value, bool):
            on, off = with_leaf(on, path, True), with_leaf(off, path, False)
        elif value != {} or path[0] != "components":
            marked, text = mark(number, value)
            on, off = with_leaf(on, path, marked), with_leaf(off, path, marked)
            marks[path] = text
    all_on = render(chart, on)
    seen = all_on + render(chart, off)
    for path, text in marks.items():
        if text not in seen:
            wrong(f"charts/{chart}/values.yaml", f"{'.'.join(path)} isn't used by any template")
    for path, value in leaves(values):
        if isinstance(value, bool) and render(chart, with_leaf(on, path, False)) == all_on:
            wrong(f"charts/{chart}/values.yaml", f"{'.'.join(path)} switches nothing")


def declared(tree, path):
    """Whether the path is in the tree; what lies below an empty map is the user's to name."""
    for key in path:
        if tree == {}:
            return True
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True


def check_used_values_are_declared(chart):
    folder = ROOT / "charts" / chart
    values = read_yaml(folder / "values.yaml")
    for file in sorted(f for f in (folder / "templates").rglob("*") if f.is_file()):
        text = file.read_text()
        # What the template calls by a name of its own: a part of the values, or the values of a component.
        names = {name: tuple(filter(None, path.split("."))) for name, path in re.findall(r"(\$\w+) := \S*\.Values([.\w]*) ", text)}
        names |= {name: ("defaults",) for name in re.findall(r"(\$\w+) := include \"quokka.component\"", text)}
        names[".Values"] = ()
        for name, stands_for in names.items():
            for path in re.findall(re.escape(name) + r"\.(\w+(?:\.\w+)*)", text):
                whole = (*stands_for, *path.split("."))
                if not declared(values, whole):
                    wrong(file.relative_to(ROOT), f"uses {'.'.join(whole)}, which values.yaml doesn't declare")


def check_values_are_commented(chart):
    """Each value, or a map that it is in, has its comment for the README on the line before."""
    path = ROOT / "charts" / chart / "values.yaml"
    lines = path.read_text().splitlines()

    def walk(node, above):
        for key, value in node.value:
            name = (*above, key.value)
            if lines[key.start_mark.line - 1].strip().startswith(("# -- ", "# @default -- ")):
                continue
            if isinstance(value, yaml.MappingNode) and value.value:
                walk(value, name)
            else:
                wrong(path.relative_to(ROOT), f"{'.'.join(name)} has no comment")

    walk(yaml.compose(path.read_text()), ())


# Pods and selectors.


def documents(chart):
    for path in sorted(RENDERED.glob(f"{chart}.*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document:
                yield path.stem, document


def check_workloads(chart):
    for preset, document in documents(chart):
        name = f"{preset} {document['kind']}/{document['metadata']['name']}"
        spec = document.get("spec", {})
        if document["kind"] == "Job" and spec.get("ttlSecondsAfterFinished") == 0:
            wrong(name, "ttlSecondsAfterFinished is 0")
        selector = spec.get("selector") or {}
        for label in selector.get("matchLabels", selector):
            if "version" in label or label == "helm.sh/chart":
                wrong(name, f"its selector has {label}, which changes with the chart")
        pod = document if document["kind"] == "Pod" else spec.get("template")
        for container in (pod or {}).get("spec", {}).get("containers", []):
            if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
                wrong(name, f"container {container['name']} can write to its root")
            if container["image"].endswith(":latest") or ":" not in container["image"]:
                wrong(name, f"image {container['image']} isn't pinned")
        if document["kind"] in ("Role", "ClusterRole"):
            for rule in document["rules"]:
                if any("*" in entry for key in ("apiGroups", "resources", "verbs") for entry in rule[key]):
                    wrong(name, f"a wildcard in {rule}")
        if document["kind"] == "CustomResourceDefinition":
            if document["metadata"]["annotations"].get("helm.sh/resource-policy") != "keep":
                wrong(name, "isn't kept when the chart is uninstalled")


def check_environment():
    """What the charts set is what the programs read, and what a program can't do without is set."""
    shared = rust(LIBRARIES)
    for chart in CHARTS:
        configured = {}
        for preset, document in documents(chart):
            component = document["metadata"].get("labels", {}).get("app.kubernetes.io/component")
            names = configured.setdefault(component, set())
            if document["kind"] == "ConfigMap":
                names |= set(document["data"])
            if document["kind"] == "Deployment":
                for container in document["spec"]["template"]["spec"]["containers"]:
                    names |= {variable["name"] for variable in container.get("env", [])}
        for component, source in PROGRAMS.items():
            if component not in configured:
                continue
            text = rust(source)
            for name in sorted(configured[component]):
                if name.startswith("QUOKKA_") and f'"{name}"' not in text + shared:
                    wrong(f"charts/{chart}", f"{component} is given {name}, which its program doesn't read")
            # One program may have several roles, each with its own needs.
            given = set().union(*(configured.get(role, set()) for role in PROGRAMS if PROGRAMS[role] == source))
            for name in sorted(set(re.findall(r'env\.(?:required|secret|secret_url)\w*(?:::<.*?>+)?\(\s*"(QUOKKA_\w+)"', text)) - given):
                wrong(f"charts/{chart}", f"{component} isn't given {name}, which its program needs")


# Alerts, their tests and their runbooks.


def exported_metrics():
    """What is given to a constructor of chassis::metrics or of prometheus; any other text of the source is no metric."""
    source = "\n".join(rust(folder) for folder in ("services", "operator", LIBRARIES))
    return set(re.findall(r'\b(?:register_)?(?:int_counter|int_gauge|gauge|histogram)(?:_vec)?!?\(\s*(?:Opts::new\(\s*)?"([a-z][a-z0-9_]*)"', source))


def metrics_of(expression):
    return set(re.findall(r"([A-Za-z_:][\w:]*)\s*\{", expression))


def check_expression(where, expression, exported, recorded):
    bare = re.sub(r'"[^"]*"', '""', expression)
    for metric in sorted(metrics_of(bare)):
        base = re.sub(r"_(count|sum|bucket)$", "", metric)
        if metric not in recorded | OF_PROMETHEUS | OF_PROCESSES and metric not in exported and base not in exported:
            wrong(where, f"no program exports {metric}")


def check_alerts(chart, exported, boards):
    folder = ROOT / "charts" / chart
    configured = read_yaml(folder / "values.yaml")["alerts"]["rules"]
    fires, stays_quiet = set(), set()
    for test in (test for file in sorted((folder / "tests").glob("*.yaml")) for test in read_yaml(file)["tests"]):
        for name in {case["alertname"] for case in test.get("alert_rule_test", [])}:
            cases = [case for case in test["alert_rule_test"] if case["alertname"] == name]
            if any(case.get("exp_alerts") for case in cases):
                fires.add(name)
            if name in configured and shows_quiet(test, cases, seconds(configured[name]["for"])):
                stays_quiet.add(name)
    seen = set()
    for preset, document in documents(chart):
        if document["kind"] != "PrometheusRule":
            continue
        groups = document["spec"]["groups"]
        recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
        for group in groups:
            if len(group["rules"]) > 20:
                wrong(preset, f"group {group['name']} has {len(group['rules'])} rules")
            for rule in group["rules"]:
                name = rule.get("alert", rule.get("record"))
                check_expression(f"{preset} {name}", rule["expr"], exported, recorded)
                if "alert" in rule:
                    seen.add(name)
                    check_alert(preset, rule)
                    check_leads_somewhere(preset, rule, groups, boards)
    for name in sorted(set(configured) | seen):
        where = f"charts/{chart} alert {name}"
        if name not in seen:
            wrong(where, "is in the values but in no rule")
        if name not in configured:
            wrong(where, "is a rule but not in the values")
        if name not in fires:
            wrong(where, "has no test in which it fires")
        if name not in stays_quiet:
            wrong(where, "has no test in which it doesn't")
    return seen


def seconds(duration):
    """A duration of Prometheus, such as 1m30s."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"([0-9]+)(ms|s|m|h|d)", str(duration)))


def shows_quiet(test, cases, hold):
    """Whether an alert is seen not to fire where it could: after its `for`, and not merely on its way to firing; or beside
    one that fires, for another series."""
    times = {id(case): seconds(case["eval_time"]) for case in cases}
    firing = [case for case in cases if case.get("exp_alerts")]
    for case in cases:
        at = times[id(case)]
        if not case.get("exp_alerts") and at > hold and not any(at < times[id(other)] <= at + hold for other in firing):
            return True
    series = [dict(re.findall(r'(\w+)="([^"]*)"', series["series"])) for series in test.get("input_series", [])]
    for case in firing:
        alerts = [alert["exp_labels"] for alert in case["exp_alerts"]]
        for label in set().union(*alerts) - {"severity"}:
            if {labels[label] for labels in series if label in labels} - {alert.get(label) for alert in alerts}:
                return True
    return False


def check_alert(preset, rule):
    name, where = rule["alert"], f"{preset} {rule['alert']}"
    if not re.fullmatch(r"Quokka[A-Z][A-Za-z0-9]{1,33}", name):
        wrong(where, "isn't Quokka... in CamelCase, up to 40 characters")
    if rule["labels"].get("severity") not in ("critical", "warning", "info"):
        wrong(where, "has no severity")
    notes = rule["annotations"]
    summary = notes.get("summary", "")
    if "{{" in summary or not re.fullmatch(r"[A-Z][^.]*\.", summary):
        wrong(where, f"its summary isn't one sentence without templates: {summary}")
    if "{{" not in notes.get("description", ""):
        wrong(where, "its description tells nothing of the case")
    for key in ("runbook_url", "dashboard_url"):
        url = notes.get(key, "")
        if not re.match(r"https?://", url) and not (ROOT / url).is_file():
            wrong(where, f"{key} {url} is no file of the repository")


def check_leads_somewhere(preset, rule, groups, boards):
    """The dashboard that an alert leads to shows what the alert is about."""
    where = f"{preset} {rule['alert']}"
    uid = rule["annotations"].get("dashboard_url", "").rsplit("/", 1)[-1].removesuffix(".json")
    if uid not in boards:
        wrong(where, f"leads to the dashboard {uid}, of which there is none")
        return
    recorded = {other["record"]: other["expr"] for group in groups for other in group["rules"] if "record" in other}
    asked = series_of(rule["expr"])
    for name in asked & set(recorded):
        asked |= series_of(recorded[name])
    # Whether a process is there at all is shown by what it exports.
    about = asked - set(recorded) - OF_PROMETHEUS
    if about and not about & boards[uid]:
        wrong(where, f"is about {', '.join(sorted(about))}, and leads to {uid}, which shows none of it")


def series_of(expression):
    return metrics_of(re.sub(r'"[^"]*"', '""', expression))


def check_runbooks(alerts):
    pages = {page.stem: page.read_text() for page in RUNBOOKS.glob("Quokka*.md")}
    index = (RUNBOOKS / "README.md").read_text()
    for name in sorted(alerts | set(pages)):
        where = f"docs/runbooks/{name}.md"
        if name not in pages:
            wrong(where, "is missing")
            continue
        if name not in alerts:
            wrong(where, "is for no alert")
        if f"]({name}.md)" not in index:
            wrong(where, "isn't in docs/runbooks/README.md")
        if [line for line in pages[name].splitlines() if line.startswith("## ")] != SECTIONS:
            wrong(where, f"its sections aren't {', '.join(SECTIONS)}")
        if "```sh" not in pages[name]:
            wrong(where, "has no commands to paste")


def dashboards():
    """The series that each dashboard shows, by its uid."""
    boards = {}
    for path in sorted((ROOT / "manifests" / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        boards[board["uid"]] = set().union(*(series_of(expression) for expression in expressions))
    return boards


def check_dashboards(exported):
    """Conventions of dashboards: found by every data source, cluster and namespace, said in words, of metrics that are."""
    if not dashboards():
        wrong("manifests/dashboards", "there are none")
    for path in sorted((ROOT / "manifests" / "dashboards").glob("*.json")):
        board, where = json.loads(path.read_text()), path.relative_to(ROOT)
        if board.get("uid") != path.stem:
            wrong(where, "its uid isn't the file's name")
        variables = [variable["name"] for variable in board["templating"]["list"]]
        if not {"datasource", "cluster", "namespace"} <= set(variables):
            wrong(where, f"its variables are {variables}")
        numbers, places = [panel["id"] for panel in board["panels"]], [tuple(panel["gridPos"].values()) for panel in board["panels"]]
        if len(set(numbers)) < len(numbers) or len(set(places)) < len(places):
            wrong(where, "two panels have one number or one place")
        for panel in board["panels"]:
            name = f"{where} panel {panel.get('title')}"
            if not panel.get("title") or not panel.get("description") or not panel["fieldConfig"]["defaults"].get("unit"):
                wrong(name, "lacks a title, a description or a unit")
            for target in panel["targets"]:
                check_expression(name, target["expr"], exported, set())
                if target["datasource"]["uid"] != "${datasource}":
                    wrong(name, "asks another data source than the chosen one")
                for selector in re.findall(r"\{([^}]*)\}", target["expr"]):
                    if 'cluster=~"$cluster"' not in selector or 'namespace="$namespace"' not in selector:
                        wrong(name, f"asks beyond the chosen clusters and namespace: {selector}")
                if set(re.findall(r"\[([^\]]*)\]", target["expr"])) - {"$__rate_interval"}:
                    wrong(name, "has a window other than $__rate_interval")


def check_copies():
    """The chart's dashboards are those of manifests/."""
    source = {f.name: f.read_text() for f in (ROOT / "manifests/dashboards").glob("*.json")}
    copied = {f.name: f.read_text() for f in (ROOT / "charts/quokka/files/dashboards").glob("*.json")}
    if source != copied:
        wrong("charts/quokka/files/dashboards", "differs from manifests/dashboards; generate them again")
    installed = {name for preset, document in documents("quokka") if preset == "quokka.production" for name in document.get("data") or {}}
    if not set(source) <= installed:
        wrong("charts/quokka", "doesn't install every dashboard where they are switched on")


def check_definitions():
    """The custom resources in the operator's chart are those that are generated."""
    source = {f.name: f.read_text() for f in (ROOT / "crds").glob("*.yaml")}
    copied = {f.name: f.read_text() for f in (ROOT / "charts/quokka-operator/files/crds").glob("*.yaml")}
    if not source:
        wrong("crds", "there are no definitions")
    if source != copied:
        wrong("charts/quokka-operator/files/crds", "differs from crds/; generate them again")


for chart in CHARTS:
    check_declared_values_are_used(chart)
    check_used_values_are_declared(chart)
    check_values_are_commented(chart)
    check_workloads(chart)
check_environment()
exported = exported_metrics()
boards = dashboards()
check_runbooks(set().union(*(check_alerts(chart, exported, boards) for chart in CHARTS)))
check_dashboards(exported)
check_copies()
check_definitions()
for problem in problems:
    print(problem, file=sys.stderr)
sys.exit(1 if problems else 0)
