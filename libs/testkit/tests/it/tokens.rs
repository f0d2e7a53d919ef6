use serde_json::json;
use testkit::{JwksServer, TokenIssuer};
use uuid::Uuid;

use super::talk;

#[test]
fn a_token_is_signed_with_the_published_key() {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};

    let issuer = TokenIssuer::new();
    let user = Uuid::new_v4();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["quokka-api"]);
    validation.set_issuer(&["quokka"]);
    let jwk = serde_json::from_value(issuer.jwk().clone()).unwrap();
    for key in [
        DecodingKey::from_jwk(&jwk).unwrap(),
        DecodingKey::from_ed_pem(issuer.public_pem().as_bytes()).unwrap(),
    ] {
        let token = decode::<serde_json::Value>(
            issuer.token_with_roles(user, &["host"]),
            &key,
            &validation,
        )
        .unwrap();
        assert_eq!(token.header.kid.as_deref(), Some(issuer.kid()));
        assert_eq!(token.claims["sub"], user.to_string());
        assert_eq!(token.claims["roles"], json!(["host"]));
        assert!(
            decode::<serde_json::Value>(TokenIssuer::new().token(user), &key, &validation).is_err()
        );
    }
}

#[test]
fn the_private_key_is_one_that_can_sign() {
    let issuer = TokenIssuer::new();
    assert!(jsonwebtoken::EncodingKey::from_ed_pem(issuer.private_pem().as_bytes()).is_ok());
}

#[tokio::test]
async fn the_server_publishes_what_it_is_told() {
    let (one, other) = (TokenIssuer::new(), TokenIssuer::new());
    let server = JwksServer::start(one.jwks()).await.unwrap();
    let port: u16 = server
        .url()
        .split([':', '/'])
        .find_map(|part| part.parse().ok())
        .unwrap();
    let ask =
        b"GET /.well-known/jwks.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(talk(port, ask).await.unwrap().contains(one.kid()));
    server.publish(other.jwks());
    assert!(talk(port, ask).await.unwrap().contains(other.kid()));
    server.set_up(false);
    assert!(talk(port, ask).await.unwrap().starts_with("HTTP/1.1 503"));
    assert_eq!(server.requests(), 3);
}
