use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
    routing::{get as on_get, post as on_post},
};
use chassis::{
    http::{HttpOptions, Json, Mistakes, Path, Query, router},
    metrics,
    problem::{Problem, common},
};
use http::{Method, Request, header};
use serde::{Deserialize, Serialize};

use super::{get, json, post, send, served};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Party {
    guests: Vec<Guest>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Guest {
    name: String,
    age: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    #[allow(dead_code, reason = "only whether it can be read matters")]
    age: Option<u8>,
}

async fn check(Json(party): Json<Party>) -> Result<Json<Party>, Problem> {
    let mut mistakes = Mistakes::new();
    mistakes.require(!party.guests.is_empty(), "/guests", "is empty");
    for (at, guest) in party.guests.iter().enumerate() {
        if guest.name.is_empty() {
            mistakes.add(&format!("/guests/{at}/name"), "is empty");
        }
    }
    mistakes.finish()?;
    Ok(Json(party))
}

fn api() -> Router {
    served(
        Router::new()
            .route(
                "/parties",
                on_post(check).get(async |_: Query<Filter>| "list"),
            )
            .route(
                "/numbers/{number}",
                on_get(async |Path(number): Path<u32>| number.to_string()),
            )
            .route(
                "/names/{name}",
                on_get(async |Path(name): Path<String>| name),
            )
            .route(
                "/bytes",
                on_post(async |body: Bytes| body.len().to_string()),
            )
            .route("/deaf", on_post(async || "heard nothing"))
            .route(
                "/panic",
                on_get(async || -> &'static str { panic!("a secret of the house") }),
            )
            .route(
                "/broken",
                on_get(async || -> Result<(), Problem> {
                    Err(sqlx::Error::ColumnNotFound("secret".into()).into())
                }),
            )
            .route(
                "/gone",
                on_get(async || -> Result<(), Problem> { Err(sqlx::Error::PoolTimedOut.into()) }),
            ),
    )
}

#[tokio::test]
async fn good_json_is_read_and_written() {
    let party = r#"{"guests":[{"name":"Ada","age":36}]}"#;
    let answer = post(&api(), "/parties", party).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.to_string()),
        (200, r#"{"guests":[{"age":36,"name":"Ada"}]}"#.to_owned())
    );
    let mut request = json(Method::POST, "/parties", party);
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        "Application/JSON; charset=utf-8".parse().unwrap(),
    );
    assert_eq!(send(&api(), request).await.status, 200);
}

#[tokio::test]
async fn wrong_json_is_told_with_a_pointer_to_the_place() {
    for (body, pointer, word) in [
        (
            r#"{"guests":[{"name":"Ada","age":36},{"name":"Bob","age":"old"}]}"#,
            "#/guests/1/age",
            "u8",
        ),
        (
            r#"{"guests":[{"name":"Ada","age":3000}]}"#,
            "#/guests/0/age",
            "3000",
        ),
        (
            r#"{"guests":[{"name":"Ada"}]}"#,
            "#/guests/0",
            "missing field `age`",
        ),
        (
            r#"{"guests":[],"host":1}"#,
            "#/host",
            "unknown field `host`",
        ),
        (
            r#"{"guests":[{"name":"Ada","age":36,"a/b~c":1}]}"#,
            "#/guests/0/a~1b~0c",
            "unknown field",
        ),
        (
            r#"{"guests":[{"name":null,"age":36}]}"#,
            "#/guests/0/name",
            "null",
        ),
        (r#"{"guests":["#, "#/guests", "EOF"),
        ("", "#", "EOF"),
        ("[1]", "#", "send an object"),
        (r#"[[{"name":"Ada","age":36}]]"#, "#", "send an object"),
        (" \t\r\n[[]]", "#", "send an object"),
        (r#"{"guests":[{"name":"Ada","age":36}]} x"#, "#", "trailing"),
        ("\u{feff}{}", "#", "expected value"),
    ] {
        let answer = post(&api(), "/parties", body).await;
        let detail = answer.problem(400, "INVALID_REQUEST");
        assert!(detail.contains(word), "{body}: {detail}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{body}");
        let place = pointer.trim_start_matches('#');
        let said = if place.is_empty() { "the body" } else { place };
        assert!(detail.starts_with(said), "{body}: {detail}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_text_are_wrong_json() {
    let mut request = json(Method::POST, "/parties", "");
    *request.body_mut() = Body::from(&b"{\"guests\":[{\"name\":\"\xff\",\"age\":1}]}"[..]);
    send(&api(), request).await.problem(400, "INVALID_REQUEST");
    let deep = "[".repeat(10_000);
    post(&api(), "/parties", &deep)
        .await
        .problem(400, "INVALID_REQUEST");
}

#[tokio::test]
async fn mistakes_that_a_type_cant_express_are_told_all_at_once() {
    let answer = post(
        &api(),
        "/parties",
        r#"{"guests":[{"name":"","age":1},{"name":"Ada","age":1},{"name":"","age":1}]}"#,
    )
    .await;
    assert_eq!(
        answer.problem(400, "INVALID_REQUEST"),
        "/guests/0/name: is empty; /guests/2/name: is empty"
    );
    assert_eq!(answer.body["errors"][1]["pointer"], "#/guests/2/name");
}

#[tokio::test]
async fn another_content_type_is_415() {
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
    ] {
        let mut request = json(Method::POST, "/parties", "{}");
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        send(&api(), request)
            .await
            .problem(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    let bare = Request::post("/parties").body(Body::from("{}")).unwrap();
    send(&api(), bare)
        .await
        .problem(415, "UNSUPPORTED_MEDIA_TYPE");
}

#[tokio::test]
async fn a_body_too_large_is_413_whether_its_size_is_told_or_not() {
    let large = "x".repeat(HttpOptions::default().body_limit_bytes + 1);
    for path in ["/parties", "/bytes", "/deaf"] {
        post(&api(), path, &large)
            .await
            .problem(413, "PAYLOAD_TOO_LARGE");
    }
    let chunks = futures::stream::iter(
        large
            .into_bytes()
            .chunks(1_000)
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)))
            .collect::<Vec<_>>(),
    );
    let mut request = json(Method::POST, "/parties", "");
    *request.body_mut() = Body::from_stream(chunks);
    send(&api(), request)
        .await
        .problem(413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn a_path_or_query_that_cant_be_read_is_400_with_its_parameter() {
    let answer = get(&api(), "/names/%FF%FE").await;
    answer.problem(400, "INVALID_REQUEST");
    assert_eq!(answer.body["errors"][0]["parameter"], "name");
    for path in [
        "/numbers/x",
        "/numbers/-1",
        "/numbers/99999999999",
        "/parties?age=old",
        "/parties?agee=1",
    ] {
        get(&api(), path).await.problem(400, "INVALID_REQUEST");
    }
    assert_eq!(get(&api(), "/numbers/7").await.status, 200);
    assert_eq!(get(&api(), "/parties?age=7").await.status, 200);
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_wrong_method_405_with_allow() {
    get(&api(), "/nowhere").await.problem(404, "NOT_FOUND");
    get(&api(), "/").await.problem(404, "NOT_FOUND");
    let answer = send(&api(), json(Method::PUT, "/parties", "{}")).await;
    answer.problem(405, "METHOD_NOT_ALLOWED");
    let allow = answer.headers[header::ALLOW].to_str().unwrap();
    let mut methods: Vec<&str> = allow.split(',').map(str::trim).collect();
    methods.sort_unstable();
    assert_eq!(methods, ["GET", "HEAD", "POST"]);
}

#[tokio::test]
async fn a_panic_and_a_mistake_of_ours_are_500_that_say_nothing_of_it() {
    for path in ["/panic", "/broken"] {
        let answer = get(&api(), path).await;
        assert_eq!(
            answer.problem(500, "INTERNAL"),
            "a mistake of the service's own: its log tells it by the traceId"
        );
        assert!(!answer.body.to_string().contains("secret"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_gone_is_503_with_retry_after() {
    let answer = get(&api(), "/gone").await;
    answer.problem(503, "UNAVAILABLE");
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_503() {
    let options = HttpOptions {
        request_timeout: Duration::from_millis(10),
        ..HttpOptions::default()
    };
    let api = router(
        Router::new().route("/never", on_get(std::future::pending::<()>)),
        options,
    );
    let answer = get(&api, "/never").await;
    answer.problem(503, "TIMED_OUT");
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn routes_are_measured_by_template_and_invented_methods_as_one() {
    let api =
        served(Router::new().route("/measured/{id}", on_get(async |_: Path<String>| "measured")));
    for id in ["a", "b", "c"] {
        get(&api, &format!("/measured/{id}")).await;
    }
    for method in ["MADEUP", "INVENTED"] {
        let request = Request::builder()
            .method(method)
            .uri("/measured/a")
            .body(Body::empty())
            .unwrap();
        send(&api, request).await.problem(405, "METHOD_NOT_ALLOWED");
    }
    let text = metrics::render().unwrap();
    let count = |method: &str, status: u16| {
        format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",http_response_status_code=\"{status}\",http_route=\"/measured/{{id}}\"}}"
        )
    };
    assert!(text.contains(&format!("{} 3", count("GET", 200))), "{text}");
    assert!(
        text.contains(&format!("{} 2", count("_OTHER", 405))),
        "{text}"
    );
    assert!(
        !text.contains("MADEUP") && !text.contains("/measured/a"),
        "{text}"
    );
}

#[tokio::test]
async fn the_trace_of_the_caller_is_the_trace_of_the_problem() {
    let request = Request::get("/nowhere")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        )
        .body(Body::empty())
        .unwrap();
    let answer = send(&api(), request).await;
    assert_eq!(answer.body["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[test]
fn common_codes_are_unique_and_well_formed() {
    let mut codes: Vec<&str> = common::ALL.iter().map(|code| code.as_str()).collect();
    assert!(codes.iter().all(|code| {
        code.bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    }));
    codes.sort_unstable();
    let count = codes.len();
    codes.dedup();
    assert_eq!(codes.len(), count);
}
