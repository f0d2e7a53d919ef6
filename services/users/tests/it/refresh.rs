//! POST /v1/sessions/refresh

use futures::future::join_all;
use proptest::prelude::*;
use serde_json::json;

use crate::service::{Answer, Service};

async fn signed_in(service: &Service) -> String {
    service.sign_up("kim@example.com", "correct horse").await;
    service
        .sign_in("kim@example.com", "correct horse")
        .await
        .text("refreshToken")
}

#[track_caller]
fn is_refused(answer: &Answer) {
    answer.is_problem(
        401,
        "INVALID_REFRESH_TOKEN",
        "The refresh token is not valid",
        "sign in again",
    );
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn a_refresh_gives_the_next_pair() {
    let service = Service::start().await;
    let token = signed_in(&service).await;
    let answer = service.refresh(&token).await;
    let (access, next) = (answer.text("accessToken"), answer.text("refreshToken"));
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.body,
        json!({"accessToken": access, "refreshToken": next, "expiresIn": 900})
    );
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_ne!(next, token);
    assert_eq!(service.me(&access).await.status, 200);
    assert_eq!(service.refresh(&next).await.status, 201);
}

#[tokio::test]
async fn a_used_token_ends_its_session_and_no_other() {
    let service = Service::start().await;
    let stolen = signed_in(&service).await;
    let other = service
        .sign_in("kim@example.com", "correct horse")
        .await
        .text("refreshToken");
    let newest = service.refresh(&stolen).await.text("refreshToken");
    is_refused(&service.refresh(&stolen).await);
    is_refused(&service.refresh(&newest).await);
    assert_eq!(
        service
            .count("SELECT count(*) FROM sessions WHERE end_reason = 'REUSED'")
            .await,
        1
    );
    assert_eq!(service.refresh(&other).await.status, 201);
    let (_, metrics) = service.ops("/metrics").await;
    assert!(
        metrics.contains("\nquokka_users_refresh_tokens_reused_total 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn of_refreshes_at_once_with_one_token_at_most_one_wins_and_the_session_ends() {
    let service = Service::start().await;
    let mut token = signed_in(&service).await;
    for round in 0..10 {
        let answers = join_all((0..4).map(|_| service.refresh(&token))).await;
        let won: Vec<&Answer> = answers
            .iter()
            .filter(|answer| answer.status == 201)
            .collect();
        assert_eq!(won.len(), 1, "round {round}: {answers:?}");
        answers
            .iter()
            .filter(|answer| answer.status != 201)
            .for_each(is_refused);
        is_refused(&service.refresh(&won[0].text("refreshToken")).await);
        token = service
            .sign_in("kim@example.com", "correct horse")
            .await
            .text("refreshToken");
    }
}

#[tokio::test]
async fn what_is_no_token_of_ours_is_refused_and_ends_nothing() {
    let service = Service::start().await;
    let token = signed_in(&service).await;
    let other = service
        .sign_in("kim@example.com", "correct horse")
        .await
        .text("refreshToken");
    // A session's id, which is no secret, with secrets of another session.
    let spliced = format!("{}{}", &token[..20], &other[20..]);
    for bad in [
        "",
        "x",
        "비밀",
        &"A".repeat(107),
        &token[..106],
        &format!("{token}A"),
        &spliced,
        &"x".repeat(5_000),
    ] {
        is_refused(&service.refresh(bad).await);
    }
    assert_eq!(service.refresh(&token).await.status, 201);
    assert_eq!(service.refresh(&other).await.status, 201);
    for body in [
        json!({}),
        json!({"refreshToken": null}),
        json!({"refreshToken": token, "scope": "all"}),
    ] {
        let answer = service.post("/v1/sessions/refresh", &body).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (400, &json!("INVALID_REQUEST")),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_session_that_is_over_is_refused_and_each_refresh_makes_it_last_longer() {
    let service = Service::start_with(&[("QUOKKA_REFRESH_TOKEN_TTL", "2h")]).await;
    let token = signed_in(&service).await;
    let lasting = "SELECT count(*) FROM sessions WHERE expires_at > now() + interval '119 minutes'";
    service
        .execute("UPDATE sessions SET expires_at = now() + interval '1 minute'")
        .await;
    assert_eq!(service.count(lasting).await, 0);
    let token = service.refresh(&token).await.text("refreshToken");
    assert_eq!(service.count(lasting).await, 1);
    service
        .execute("UPDATE sessions SET expires_at = now()")
        .await;
    is_refused(&service.refresh(&token).await);
}

#[tokio::test]
async fn a_session_is_over_at_its_greatest_age_however_often_it_is_refreshed() {
    let service = Service::start_with(&[("QUOKKA_SESSION_AGE_MAX", "40d")]).await;
    let token = signed_in(&service).await;
    service
        .execute("UPDATE sessions SET created_at = now() - interval '39 days'")
        .await;
    let token = service.refresh(&token).await.text("refreshToken");
    let capped =
        "SELECT count(*) FROM sessions WHERE expires_at = created_at + interval '960 hours'";
    assert_eq!(service.count(capped).await, 1);
    // As if it had been refreshed while a greater age was allowed.
    service
        .execute("UPDATE sessions SET created_at = now() - interval '41 days', expires_at = now() + interval '1 day'")
        .await;
    is_refused(&service.refresh(&token).await);
    assert_eq!(
        service
            .count("SELECT count(*) FROM sessions WHERE end_reason IS NOT NULL")
            .await,
        0,
        "nobody has used a token twice"
    );
}

#[tokio::test]
async fn no_token_can_be_read_from_the_database() {
    let service = Service::start().await;
    let token = signed_in(&service).await;
    let dump = service.dump().await;
    let bytes =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &token).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(dump.contains("(sessions)"), "{dump}");
    for secret in [token.as_str(), &hex[32..96], &hex[96..]] {
        assert!(!dump.contains(secret));
    }
}

/// One step of a guest, or of a thief who has copies of every token so far.
#[derive(Debug, Clone)]
enum Step {
    SignIn,
    /// Presents one of the tokens seen so far, newest first.
    Refresh(usize),
    SignOut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::SignIn),
        8 => (0_usize..6).prop_map(Step::Refresh),
        1 => Just(Step::SignOut),
    ];
    prop::collection::vec(step, 1..25)
}

/// A token that was given out: whose session it is, and whether it may still be used.
struct Given {
    token: String,
    session: usize,
    newest: bool,
}

async fn follow(service: &Service, email: &str, steps: Vec<Step>) {
    service.sign_up(email, "correct horse").await;
    let (mut given, mut live) = (Vec::<Given>::new(), Vec::<bool>::new());
    for step in steps {
        match step {
            Step::SignIn => {
                let answer = service.sign_in(email, "correct horse").await;
                given.push(Given {
                    token: answer.text("refreshToken"),
                    session: live.len(),
                    newest: true,
                });
                live.push(true);
            }
            Step::SignOut => {
                let access = service
                    .sign_in(email, "correct horse")
                    .await
                    .text("accessToken");
                let request = service
                    .request("DELETE", "/v1/sessions")
                    .bearer_auth(access);
                assert_eq!(service.send(request).await.status, 204);
                live.iter_mut().for_each(|session| *session = false);
            }
            Step::Refresh(back) => {
                let Some(at) = given.len().checked_sub(back + 1) else {
                    continue;
                };
                let answer = service.refresh(&given[at].token).await;
                let session = given[at].session;
                if live[session] && given[at].newest {
                    given[at].newest = false;
                    given.push(Given {
                        token: answer.text("refreshToken"),
                        session,
                        newest: true,
                    });
                } else {
                    is_refused(&answer);
                    live[session] = false;
                }
            }
        }
    }
}

/// Whatever is presented in whatever order: the newest token of a live session works, any other ends its session.
#[test]
fn refreshes_follow_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = runtime.block_on(Service::start());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&steps(), |steps| {
            let email = format!("{}@example.com", testkit::unique_name("guest"));
            runtime.block_on(follow(&service, &email, steps));
            Ok(())
        })
        .unwrap();
}
