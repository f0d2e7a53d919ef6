//! GET /.well-known/jwks.json, and how a key is changed.

use serde_json::json;
use testkit::TokenIssuer;

use crate::process::file;
use crate::service::Service;

#[tokio::test]
async fn the_keys_are_public_halves_that_may_be_kept_for_a_minute() {
    let key = TokenIssuer::new();
    let key_file = file(key.private_pem());
    let service =
        Service::start_with(&[("QUOKKA_SIGNING_KEY_FILE", key_file.path().to_str().unwrap())])
            .await;
    let answer = service
        .send(service.request("GET", "/.well-known/jwks.json"))
        .await;
    let kid = answer.body["keys"][0]["kid"].clone();
    assert!(
        kid.as_str().is_some_and(|kid| kid.len() == 43),
        "a thumbprint: {kid}"
    );
    let expected = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": key.jwk()["x"]});
    assert_eq!(
        (answer.status, &answer.body),
        (200, &json!({"keys": [expected]}))
    );
    assert_eq!(answer.headers["cache-control"], "public, max-age=60");
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_key_is_changed_in_three_steps_and_no_token_is_refused_on_the_way() {
    let (old, new) = (TokenIssuer::new(), TokenIssuer::new());
    let (old_file, new_file) = (file(old.private_pem()), file(new.private_pem()));
    let old_public = file(old.public_pem());
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
    let (signing, previous) = ("QUOKKA_SIGNING_KEY_FILE", "QUOKKA_PREVIOUS_KEY_FILE");

    let database = testkit::Postgres::shared()
        .await
        .create_database()
        .await
        .unwrap();
    let before = Service::on(&database.url, &[(signing, &path(&old_file))]).await;
    let published = Service::on(
        &database.url,
        &[(signing, &path(&old_file)), (previous, &path(&new_file))],
    )
    .await;
    let swapped = Service::on(
        &database.url,
        &[(signing, &path(&new_file)), (previous, &path(&old_public))],
    )
    .await;
    let after = Service::on(&database.url, &[(signing, &path(&new_file))]).await;

    let first = before.sign_up_and_in("kim@example.com").await;
    let second = published
        .sign_in("kim@example.com", "correct horse")
        .await
        .text("accessToken");
    let third = swapped
        .sign_in("kim@example.com", "correct horse")
        .await
        .text("accessToken");
    // Replicas of two neighbouring steps run side by side during a roll-out.
    for (service, tokens) in [
        (&before, [&first, &second].as_slice()),
        (&published, &[&first, &second, &third]),
        (&swapped, &[&first, &second, &third]),
        (&after, &[&third]),
    ] {
        for token in tokens {
            assert_eq!(service.me(token).await.status, 200);
        }
    }
    assert_eq!(after.me(&first).await.status, 401, "the old key is gone");
}
