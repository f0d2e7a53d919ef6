//! POST /v1/users

use futures::future::join_all;
use serde_json::{Value, json};

use crate::service::{Answer, Service, problem};

fn kim() -> Value {
    json!({"email": "Kim@Example.com", "password": "correct horse", "name": " Kim Minji "})
}

fn profile(answer: &Answer) -> Value {
    json!({
        "userId": answer.body["userId"], "email": "kim@example.com", "name": "Kim Minji", "roles": ["guest"],
        "createdAt": answer.body["createdAt"],
    })
}

#[tokio::test]
async fn a_sign_up_is_answered_with_the_profile_and_nothing_else() {
    let service = Service::start().await;
    let answer = service.post("/v1/users", &kim()).await;
    assert_eq!((answer.status, &answer.body), (201, &profile(&answer)));
    assert_eq!(answer.headers["location"], "/v1/users/me");
    answer.body["userId"]
        .as_str()
        .unwrap()
        .parse::<uuid::Uuid>()
        .unwrap();
    answer.body["createdAt"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
}

#[tokio::test]
async fn an_address_is_taken_whatever_its_case() {
    let service = Service::start().await;
    assert_eq!(service.post("/v1/users", &kim()).await.status, 201);
    let again = service
        .post(
            "/v1/users",
            &json!({"email": "KIM@EXAMPLE.COM", "password": "another horse", "name": "Kim"}),
        )
        .await;
    again.is_problem(
        409,
        "EMAIL_TAKEN",
        "The e-mail address is taken",
        "an account with this e-mail address exists",
    );
}

#[tokio::test]
async fn of_sign_ups_at_once_with_one_address_exactly_one_is_made() {
    let service = Service::start().await;
    let answers = join_all((0..12).map(|n| {
        let email = if n % 2 == 0 {
            "race@example.com"
        } else {
            "RACE@example.com"
        };
        let body = json!({"email": email, "password": format!("password {n}"), "name": "Race"});
        let service = &service;
        async move { service.post("/v1/users", &body).await }
    }))
    .await;
    let made: Vec<usize> = (0..12).filter(|&n| answers[n].status == 201).collect();
    assert_eq!(made.len(), 1, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 || answer.body["code"] == "EMAIL_TAKEN"),
        "{answers:?}"
    );

    // The account is the winner's: its password signs in, no other does.
    let winner = format!("password {}", made[0]);
    let loser = format!("password {}", (made[0] + 1) % 12);
    assert_eq!(
        service.sign_in("race@example.com", &winner).await.status,
        201
    );
    assert_eq!(
        service.sign_in("race@example.com", &loser).await.status,
        401
    );
}

#[tokio::test]
async fn what_can_not_be_an_account_is_refused_and_changes_nothing() {
    let service = Service::start().await;
    let good = json!({"email": "lee@example.com", "password": "correct horse", "name": "Lee"});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    let without = |field: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        body
    };
    let email =
        "must be an e-mail address of at most 254 ASCII characters, such as guest@example.com";
    let password = "must have 8 to 128 characters";
    let name = "must have 1 to 100 characters, none of them a control character";
    for (body, pointer, reason) in [
        (with("email", json!("lee")), "/email", email),
        (with("email", json!("lee@localhost")), "/email", email),
        (with("email", json!("이@example.com")), "/email", email),
        (
            with("email", json!("lee\u{0}@example.com")),
            "/email",
            email,
        ),
        (with("password", json!("1234567")), "/password", password),
        (
            with("password", json!("x".repeat(129))),
            "/password",
            password,
        ),
        (with("name", json!("")), "/name", name),
        (with("name", json!("   ")), "/name", name),
        (with("name", json!("Lee\u{0}")), "/name", name),
        (with("name", json!("x".repeat(101))), "/name", name),
        (
            with("email", json!(1)),
            "/email",
            "invalid type: integer `1`, expected a string",
        ),
        (
            with("password", json!(null)),
            "/password",
            "invalid type: null, expected a string",
        ),
        (
            with("roles", json!(["admin"])),
            "/roles",
            "unknown field `roles`, expected one of `email`, `password`, `name`",
        ),
        (without("email"), "", "missing field `email`"),
        (without("password"), "", "missing field `password`"),
        (without("name"), "", "missing field `name`"),
    ] {
        let answer = service.post("/v1/users", &body).await;
        let mut expected = problem(400, "INVALID_REQUEST", "The request is not valid", &answer);
        let given = answer.body["errors"][0]["detail"]
            .as_str()
            .unwrap_or_default();
        assert!(given.starts_with(reason), "{body}: {given}");
        let place = if pointer.is_empty() {
            "the body"
        } else {
            pointer
        };
        expected["detail"] = json!(format!("{place}: {given}"));
        expected["errors"] = json!([{"detail": given, "pointer": format!("#{pointer}")}]);
        assert_eq!((answer.status, &answer.body), (400, &expected), "{body}");
    }
    for raw in [
        "",
        "{",
        "[]",
        r#"["kim@example.com", "correct horse", "Kim"]"#,
        "{} {}",
        "null",
        "\u{feff}{}",
    ] {
        let answer = service
            .post_raw("/v1/users", "application/json", raw.to_owned())
            .await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (400, &json!("INVALID_REQUEST")),
            "{raw:?}"
        );
    }
    assert_eq!(service.count("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn another_method_type_or_size_is_refused() {
    let service = Service::start().await;
    let answer = service.send(service.request("GET", "/v1/users")).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (405, &json!("METHOD_NOT_ALLOWED"))
    );
    assert_eq!(answer.headers["allow"], "POST");
    let answer = service
        .post_raw("/v1/users", "text/plain", kim().to_string())
        .await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (415, &json!("UNSUPPORTED_MEDIA_TYPE"))
    );
    let answer = service
        .post_raw("/v1/users", "application/json", " ".repeat(17 * 1024))
        .await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (413, &json!("PAYLOAD_TOO_LARGE"))
    );
    let answer = service.post("/v1/user", &kim()).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (404, &json!("NOT_FOUND"))
    );
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_answer() {
    let service = Service::start().await;
    let first = service
        .post_with_key("/v1/users", "sign-up-1", &kim())
        .await;
    let again = service
        .post_with_key("/v1/users", "sign-up-1", &kim())
        .await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body);
    assert_eq!(service.count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_422_even_if_only_the_password_differs() {
    let service = Service::start().await;
    assert_eq!(
        service
            .post_with_key("/v1/users", "sign-up-1", &kim())
            .await
            .status,
        201
    );
    for (field, value) in [
        ("password", "another horse"),
        ("email", "lee@example.com"),
        ("name", "Lee"),
    ] {
        let mut other = kim();
        other[field] = json!(value);
        let answer = service
            .post_with_key("/v1/users", "sign-up-1", &other)
            .await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (422, &json!("IDEMPOTENCY_KEY_REUSED")),
            "{field}"
        );
    }
    assert_eq!(service.count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn sign_ups_at_once_with_one_key_make_one_account_and_contradict_each_other_in_nothing() {
    let service = Service::start().await;
    let kim = kim();
    let answers =
        join_all((0..8).map(|_| service.post_with_key("/v1/users", "sign-up-1", &kim))).await;
    let made: Vec<&Answer> = answers
        .iter()
        .filter(|answer| answer.status == 201)
        .collect();
    assert!(!made.is_empty());
    assert!(
        made.iter().all(|answer| answer.body == made[0].body),
        "{answers:?}"
    );
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (409, &json!("IDEMPOTENCY_IN_FLIGHT"))
        );
    }
    assert_eq!(service.count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn a_sign_up_whose_answer_was_never_stored_is_recognised_by_its_key_and_password() {
    let service = Service::start().await;
    let first = service
        .post_with_key("/v1/users", "sign-up-1", &kim())
        .await;
    // The process died between making the account and storing the answer.
    service.execute("DELETE FROM idempotency_keys").await;
    let again = service
        .post_with_key("/v1/users", "sign-up-1", &kim())
        .await;
    assert_eq!((again.status, &again.body), (201, &first.body));

    for (key, password) in [
        ("sign-up-1", "another horse"),
        ("sign-up-2", "correct horse"),
    ] {
        service.execute("DELETE FROM idempotency_keys").await;
        let mut other = kim();
        other["password"] = json!(password);
        let answer = service.post_with_key("/v1/users", key, &other).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (409, &json!("EMAIL_TAKEN")),
            "{key} {password}"
        );
    }
}

#[tokio::test]
async fn a_refused_sign_up_is_not_remembered() {
    let service = Service::start().await;
    assert_eq!(service.post("/v1/users", &kim()).await.status, 201);
    let mut other = kim();
    assert_eq!(
        service
            .post_with_key("/v1/users", "sign-up-1", &other)
            .await
            .status,
        409
    );
    other["email"] = json!("lee@example.com");
    assert_eq!(
        service
            .post_with_key("/v1/users", "sign-up-1", &other)
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn no_password_can_be_read_or_guessed_fast_from_the_database() {
    use sha2::{Digest as _, Sha256};
    let service = Service::start().await;
    let body = kim().to_string();
    let request = service
        .request("POST", "/v1/users")
        .header("idempotency-key", "sign-up-1");
    let answer = service
        .send(
            request
                .header("content-type", "application/json")
                .body(body.clone()),
        )
        .await;
    assert_eq!(answer.status, 201);
    let everything = service.dump().await;
    assert!(
        everything.contains("kim@example.com")
            && everything.contains("$argon2id$v=19$m=1024,t=1,p=1$")
    );
    assert!(!everything.contains("correct horse"));
    // A fast hash of the body would let whoever has the database try passwords at the speed of that hash.
    for text in [body.as_str(), "correct horse"] {
        let digest = Sha256::digest(text);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(
            !everything.contains(&hex),
            "SHA-256 of what was sent is in the database"
        );
    }
}
