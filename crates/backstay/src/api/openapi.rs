//! The description of the API: `/api/v1/openapi.json`.

use serde_json::{Map, Value, json};

/// A path: method, path, what it does, parameters of the query, answers with their schemas.
struct Route {
    method: &'static str,
    path: &'static str,
    does: &'static str,
    query: &'static [(&'static str, &'static str)],
    answers: &'static [(u16, &'static str)],
}

const LANG: (&str, &str) = ("lang", "Language of texts: en or ko.");
const GROUP: (&str, &str) = ("group", "The group; may be missing when there is only one.");

const ROUTES: &[Route] = &[
    get(
        "/api/v1/status",
        "The cluster as this node knows it.",
        &[LANG],
        "Status",
    ),
    get("/api/v1/mirrors", "All mirrors.", &[], "Mirrors"),
    get("/api/v1/addresses", "All addresses.", &[], "Addresses"),
    get(
        "/api/v1/events",
        "Events, oldest first. With `Accept: text/event-stream` a stream that goes on; `Last-Event-ID` resumes it.",
        &[
            ("after", "Only events with a higher number."),
            (
                "limit",
                "At most so many, up to 1000; the newest ones without `after`.",
            ),
            LANG,
        ],
        "Events",
    ),
    get(
        "/api/v1/why",
        "Explains the newest decision.",
        &[LANG],
        "Why",
    ),
    get(
        "/api/v1/why/{event}",
        "Explains an event: its number, or NODE:NUMBER.",
        &[LANG],
        "Why",
    ),
    ask(
        "/api/v1/groups/{group}/move",
        "Moves a group to another node.",
    ),
    ask(
        "/api/v1/groups/{group}/start",
        "Starts a group that is held.",
    ),
    ask("/api/v1/groups/{group}/stop", "Stops a group and holds it."),
    ask(
        "/api/v1/groups/{group}/verify",
        "Compares the replicas of a mirror, and with `repair` sends what differs.",
    ),
    ask(
        "/api/v1/groups/{group}/resync",
        "Makes the standbys of a mirror, or the `node`, equal without waiting; with `full` everything is compared.",
    ),
    ask(
        "/api/v1/groups/{group}/grow",
        "Makes a mirror's volume larger on every replica while it is served: to `size` bytes, or as large as all disks let it.",
    ),
    ask(
        "/api/v1/groups/{group}/demote",
        "Lets go what a replica holds back, so that it follows. `confirm` is the mirror's name, `bytes` what was shown.",
    ),
    ask(
        "/api/v1/groups/{group}/promote",
        "Makes a node active that is consistent and not in sync, when the active is gone. `confirm` is `NODE is off`.",
    ),
    health("/livez", "The daemon answers.", &[]),
    health("/readyz", "Every group can fail over now.", &[]),
    health("/health/active", "This node serves the group.", &[GROUP]),
    health(
        "/health/standby",
        "This node could take the group over.",
        &[GROUP, ("lag", "Most bytes that it may lack, such as 16MB.")],
    ),
    get(
        "/metrics",
        "Figures in the text format of Prometheus.",
        &[],
        "",
    ),
    get("/api/v1/openapi.json", "This document.", &[], ""),
];

const fn get(
    path: &'static str,
    does: &'static str,
    query: &'static [(&'static str, &'static str)],
    schema: &'static str,
) -> Route {
    // Slices in a constant need a constant for each schema.
    let answers: &'static [(u16, &'static str)] = match schema.as_bytes() {
        b"Status" => &[(200, "Status")],
        b"Mirrors" => &[(200, "Mirrors")],
        b"Addresses" => &[(200, "Addresses")],
        b"Events" => &[(200, "Events"), (400, "Problem")],
        b"Why" => &[(200, "Why"), (404, "Problem")],
        _ => &[(200, "")],
    };
    Route {
        method: "get",
        path,
        does,
        query,
        answers,
    }
}

const fn ask(path: &'static str, does: &'static str) -> Route {
    let answers = &[
        (202, "Taken"),
        (400, "Problem"),
        (404, "Problem"),
        (409, "Problem"),
        (503, "Problem"),
        (504, "Problem"),
    ];
    Route {
        method: "post",
        path,
        does,
        query: &[],
        answers,
    }
}

const fn health(
    path: &'static str,
    does: &'static str,
    query: &'static [(&'static str, &'static str)],
) -> Route {
    Route {
        method: "get",
        path,
        does,
        query,
        answers: &[(200, "Health"), (503, "Health")],
    }
}

/// The document.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        paths.insert(
            route.path.into(),
            json!({ (route.method): operation(route) }),
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Backstay",
            "version": "1",
            "description": "Served on the daemon's Unix socket; health, metrics and this document also on a loopback port.",
        },
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = route
        .query
        .iter()
        .map(|(name, about)| {
            json!({ "name": name, "in": "query", "description": about, "schema": { "type": "string" } })
        })
        .collect();
    for name in ["group", "event"] {
        if route.path.contains(&format!("{{{name}}}")) {
            let schema = json!({ "type": "string" });
            parameters
                .push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
        }
    }
    let mut responses: Map<String, Value> = Map::new();
    for (status, schema) in route.answers {
        responses.insert(status.to_string(), response(*status, schema));
    }
    let mut operation =
        json!({ "summary": route.does, "parameters": parameters, "responses": responses });
    if let (true, Some(object)) = (route.method == "post", operation.as_object_mut()) {
        let schema = json!({ "$ref": "#/components/schemas/GroupRequest" });
        let content = json!({ "application/json": { "schema": schema } });
        object.insert(
            "requestBody".into(),
            json!({ "required": false, "content": content }),
        );
    }
    operation
}

fn response(status: u16, schema: &str) -> Value {
    let description = match status {
        200 => "Yes, or the document.",
        202 => "Taken; the work began.",
        400 => "Malformed.",
        404 => "No such thing.",
        409 => "Refused by the state of the cluster.",
        503 => "No, or busy.",
        _ => "No answer in time.",
    };
    if schema.is_empty() {
        return json!({ "description": description });
    }
    let media = if schema == "Problem" {
        "application/problem+json"
    } else {
        "application/json"
    };
    let reference = json!({ "$ref": format!("#/components/schemas/{schema}") });
    json!({ "description": description, "content": { (media): { "schema": reference } } })
}

/// An object whose keys have these types; a `?` behind a type means that null is allowed.
fn object(keys: &[(&str, &str)]) -> Value {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|(key, kind)| ((*key).to_owned(), kind_schema(kind)))
        .collect();
    let required: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn kind_schema(kind: &str) -> Value {
    if let Some(kind) = kind.strip_suffix('?') {
        return json!({ "type": [kind, "null"] });
    }
    if let Some(item) = kind.strip_prefix("[]") {
        return json!({ "type": "array", "items": kind_schema(item) });
    }
    if kind.starts_with(char::is_uppercase) {
        return json!({ "$ref": format!("#/components/schemas/{kind}") });
    }
    json!({ "type": kind })
}

fn schemas() -> Value {
    let mut schemas = plain_schemas();
    for more in [mirror_schemas(), request_schemas()] {
        if let (Some(all), Value::Object(more)) = (schemas.as_object_mut(), more) {
            all.extend(more);
        }
    }
    schemas
}

fn mirror_schemas() -> Value {
    json!({
        "Mirror": object(&[
            ("name", "string"), ("state", "string"), ("lag_bytes", "integer"),
            ("lag_seconds", "number"), ("out_of_sync_bytes", "integer"),
            ("intent_bytes", "integer"), ("resync_sent_bytes", "integer"), ("cold_writes", "integer"),
            ("front_end", "string?"), ("front_end_why", "string?"), ("verify", "Verify?"), ("growth", "Growth?"),
            ("replica", "Replica?"), ("differing", "[]object"), ("differing_more", "boolean"),
            ("held_back", "[]Held"), ("out_seconds", "number?"),
        ]),
        "Held": object(&[
            ("node", "string"), ("bytes", "integer"), ("ranges", "[]object"), ("more", "boolean"),
        ]),
        "Replica": object(&[
            ("state", "string"), ("generation", "integer"), ("epoch", "integer"),
            ("data_bytes", "integer"), ("others", "[]Other"), ("resyncs", "[]Resync"), ("intent", "[]object"),
        ]),
        "Other": object(&[("node", "string"), ("baseline", "string?"), ("marked_bytes", "integer")]),
        "Resync": object(&[("node", "string"), ("left_bytes", "integer"), ("sent_bytes", "integer")]),
        "Growth": object(&[
            ("number", "integer"), ("running", "boolean"), ("from_bytes", "integer"), ("to_bytes", "integer"),
            ("cleared_bytes", "integer"), ("refused", "string?"), ("node", "string?"), ("most_bytes", "integer?"),
        ]),
        "Verify": object(&[
            ("number", "integer"), ("running", "boolean"), ("total_bytes", "integer"),
            ("checked_bytes", "integer"), ("different_bytes", "integer"),
            ("unreadable_bytes", "integer"), ("repaired_bytes", "integer"), ("ranges", "[]object"),
        ]),
    })
}

fn request_schemas() -> Value {
    json!({
        "GroupRequest": {
            "type": "object",
            "properties": {
                "to": { "type": "string" }, "mirror": { "type": "string" }, "repair": { "type": "boolean" }, "full": { "type": "boolean" },
                "size": { "type": "integer" },
                "node": { "type": "string" }, "bytes": { "type": "integer" }, "epoch": { "type": "integer" },
                "confirm": { "type": "string" },
                "reason": { "type": "string", "maxLength": 500 },
            },
            "additionalProperties": false,
        },
    })
}

fn plain_schemas() -> Value {
    let problem = [
        ("code", "string"),
        ("message", "string"),
        ("action", "string"),
        ("see", "string"),
    ];
    json!({
        "Status": object(&[
            ("schema", "string"), ("ready", "boolean"), ("problems", "[]LastingProblem"),
            ("cluster", "string?"), ("node", "string?"), ("profile", "string?"), ("nodes", "[]Node"),
            ("view_age_ms", "number?"), ("register", "Register"), ("groups", "[]Group"), ("vpn", "[]object"),
        ]),
        "LastingProblem": object(&problem),
        "Problem": object(&[
            ("status", "integer"), problem[0], problem[1], ("detail", "string"), problem[2], problem[3],
        ]),
        "Node": object(&[
            ("name", "string"), ("role", "string"), ("up", "boolean"), ("rtt_ms", "number?"),
        ]),
        "Register": object(&[("kind", "string?"), ("reachable", "boolean")]),
        "Group": object(&[
            ("name", "string"), ("active", "string?"), ("recorded", "string?"), ("state", "string"), ("epoch", "integer?"),
            ("in_sync", "[]string"), ("can_fail_over", "boolean"), ("why_not", "string?"),
            ("resources", "[]Resource"), ("mirrors", "[]Mirror"), ("addresses", "[]Address"),
        ]),
        "Resource": object(&[("name", "string"), ("kind", "string"), ("state", "string")]),
        "Mirrors": object(&[("schema", "string"), ("mirrors", "[]Mirror")]),
        "Address": object(&[
            ("ip", "string"), ("holder", "string?"), ("driver", "string"), ("state", "string"),
        ]),
        "Addresses": object(&[("schema", "string"), ("addresses", "[]Address")]),
        "Event": object(&[
            ("id", "string"), ("node", "string"), ("seq", "integer"), ("time", "string"),
            ("boot_ns", "integer"), ("severity", "string"), ("code", "string"), ("group", "string?"),
            ("incident", "integer"), ("text", "string"),
        ]),
        "Events": object(&[("schema", "string"), ("events", "[]Event"), ("head", "integer")]),
        "Why": object(&[
            ("schema", "string"), ("event", "Event"), ("decision", "object?"),
            ("phases", "[]object"), ("total_ms", "number?"), ("chain", "[]Event"),
        ]),
        "Health": object(&[("schema", "string"), ("ok", "boolean"), ("why", "string")]),
        "Taken": object(&[("schema", "string"), ("taken", "boolean")]),
    })
}

/// Method and path of every route, for tests.
#[cfg(test)]
pub(super) fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().map(|route| (route.method, route.path))
}
