//! What the gateway serves: which path goes to which service, and what is asked of a request to it.
//!
//! The first part of a path chooses the service. A path that the table knows has a template, which is also what
//! metrics and traces call it; any other path of a service is passed on under the name of the service's part, and the
//! service answers.

use http::Method;

use crate::upstreams::Service;

/// What a route asks of the caller's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// A good token has to be there.
    Token,
    /// A token need not be there, but one that is there has to be good.
    Anybody,
    /// A token is of no use and not looked at: a guest whose token has expired comes here for another.
    NotChecked,
}

/// What a request was found to be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Who answers.
    pub(crate) service: Service,
    /// The path's template: `http.route`.
    pub(crate) template: &'static str,
    /// What is asked of the caller's token.
    pub(crate) access: Access,
    /// Whether the same request may be sent twice and have one effect, by the method or by what the API promises.
    pub(crate) repeatable: bool,
    /// Whether the service gives the same answer to the same `Idempotency-Key`, so that a request with one is repeatable.
    pub(crate) keyed: bool,
    /// The most bytes of a body, where that is more than other routes take. What is more than they take has to say its
    /// length, and is passed on as it comes.
    pub(crate) large_body_bytes_max: Option<usize>,
}

/// Why there is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Nothing is served at this path.
    Path,
    /// Something is, but not for this method.
    Method {
        /// The path's template.
        template: &'static str,
        /// What `Allow` says.
        allow: &'static str,
    },
}

/// A part of the API that one service owns.
struct Part {
    prefix: &'static str,
    /// What paths are called that the table doesn't know.
    other: &'static str,
    service: Service,
    routes: &'static [Route],
}

struct Route {
    template: &'static str,
    allow: &'static str,
    operations: &'static [Operation],
}

struct Operation {
    method: Method,
    access: Access,
    /// Repeated requests have one effect although the method doesn't say so.
    repeatable: bool,
    /// The service looks at `Idempotency-Key`.
    keyed: bool,
    /// A body may have as many bytes as this, though that is more than elsewhere.
    large_body_bytes_max: Option<usize>,
}

const fn operation(method: Method, access: Access) -> Operation {
    Operation {
        method,
        access,
        repeatable: false,
        keyed: false,
        large_body_bytes_max: None,
    }
}

/// A claim is one per guest and slot: asking again gets the same claim.
const CLAIM: Operation = Operation {
    method: Method::POST,
    access: Access::Token,
    repeatable: true,
    keyed: false,
    large_body_bytes_max: None,
};
/// A sign-up may carry a key. Signing in and refreshing give new tokens each time, whatever they carry.
const SIGN_UP: Operation = Operation {
    method: Method::POST,
    access: Access::NotChecked,
    repeatable: false,
    keyed: true,
    large_body_bytes_max: None,
};
/// Keyed by `Idempotency-Key`: the same key gets the same order, stay or room type.
const CREATE: Operation = Operation {
    method: Method::POST,
    access: Access::Token,
    repeatable: false,
    keyed: true,
    large_body_bytes_max: None,
};
/// A cancelled order stays cancelled and its refund is one, and a payment is confirmed once: asking again gets the same.
const SETTLE: Operation = CLAIM;
/// The payment gateway has no token of ours. What it tells is only taken as a reason to ask it, so once more is harmless.
const WEBHOOK: Operation = Operation {
    method: Method::POST,
    access: Access::NotChecked,
    repeatable: true,
    keyed: false,
    large_body_bytes_max: None,
};
/// A year of nights, as many as stays takes in one request.
const WRITE_CALENDAR: Operation = Operation {
    method: Method::PUT,
    access: Access::Token,
    repeatable: false,
    keyed: false,
    large_body_bytes_max: Some(128 * 1024),
};
const READ: Operation = operation(Method::GET, Access::Anybody);
const READ_OWN: Operation = operation(Method::GET, Access::Token);

static PARTS: &[Part] = &[
    Part {
        prefix: "/v1/users",
        other: "/v1/users/{*path}",
        service: Service::Users,
        routes: &[
            Route {
                template: "/v1/users",
                allow: "POST",
                operations: &[SIGN_UP],
            },
            Route {
                template: "/v1/users/me",
                allow: "GET, PATCH, HEAD",
                operations: &[READ_OWN, operation(Method::PATCH, Access::Token)],
            },
        ],
    },
    Part {
        prefix: "/v1/sessions",
        other: "/v1/sessions/{*path}",
        service: Service::Users,
        routes: &[
            Route {
                template: "/v1/sessions",
                allow: "POST, DELETE",
                operations: &[
                    operation(Method::POST, Access::NotChecked),
                    operation(Method::DELETE, Access::Token),
                ],
            },
            Route {
                template: "/v1/sessions/refresh",
                allow: "POST",
                operations: &[operation(Method::POST, Access::NotChecked)],
            },
        ],
    },
    Part {
        prefix: "/v1/coupon-campaigns",
        other: "/v1/coupon-campaigns/{*path}",
        service: Service::Promotions,
        routes: &[
            Route {
                template: "/v1/coupon-campaigns",
                allow: "GET, HEAD",
                operations: &[READ],
            },
            Route {
                template: "/v1/coupon-campaigns/{id}",
                allow: "GET, HEAD",
                operations: &[READ],
            },
            Route {
                template: "/v1/coupon-campaigns/{id}/claims",
                allow: "POST",
                operations: &[CLAIM],
            },
        ],
    },
    Part {
        prefix: "/v1/time-sales",
        other: "/v1/time-sales/{*path}",
        service: Service::Promotions,
        routes: &[
            Route {
                template: "/v1/time-sales",
                allow: "GET, HEAD",
                operations: &[READ],
            },
            Route {
                template: "/v1/time-sales/{id}",
                allow: "GET, HEAD",
                operations: &[READ],
            },
            Route {
                template: "/v1/time-sales/{id}/claims",
                allow: "POST",
                operations: &[CLAIM],
            },
            Route {
                template: "/v1/time-sales/{id}/claims/{claimId}",
                allow: "DELETE",
                operations: &[operation(Method::DELETE, Access::Token)],
            },
        ],
    },
    Part {
        prefix: "/v1/coupons",
        other: "/v1/coupons/{*path}",
        service: Service::Promotions,
        routes: &[Route {
            template: "/v1/coupons",
            allow: "GET, HEAD",
            operations: &[READ_OWN],
        }],
    },
    Part {
        prefix: "/v1/claims",
        other: "/v1/claims/{*path}",
        service: Service::Promotions,
        routes: &[Route {
            template: "/v1/claims/{claimId}",
            allow: "GET, HEAD",
            operations: &[READ_OWN],
        }],
    },
    Part {
        prefix: "/v1/stays",
        other: "/v1/stays/{*path}",
        service: Service::Stays,
        routes: &[
            Route {
                template: "/v1/stays",
                allow: "POST, GET, HEAD",
                operations: &[CREATE, READ],
            },
            Route {
                template: "/v1/stays/{id}",
                allow: "GET, HEAD",
                operations: &[READ],
            },
            Route {
                template: "/v1/stays/{id}/availability",
                allow: "GET, HEAD",
                operations: &[READ],
            },
            Route {
                template: "/v1/stays/{id}/room-types",
                allow: "POST",
                operations: &[CREATE],
            },
        ],
    },
    Part {
        prefix: "/v1/room-types",
        other: "/v1/room-types/{*path}",
        service: Service::Stays,
        routes: &[Route {
            template: "/v1/room-types/{id}/calendar",
            allow: "PUT",
            operations: &[WRITE_CALENDAR],
        }],
    },
    Part {
        prefix: "/v1/bookings",
        other: "/v1/bookings/{*path}",
        service: Service::Booking,
        routes: &[
            Route {
                template: "/v1/bookings",
                allow: "GET, HEAD",
                operations: &[READ_OWN],
            },
            Route {
                template: "/v1/bookings/{bookingId}",
                allow: "GET, HEAD",
                operations: &[READ_OWN],
            },
        ],
    },
    Part {
        prefix: "/v1/orders",
        other: "/v1/orders/{*path}",
        service: Service::Orders,
        routes: &[
            Route {
                template: "/v1/orders",
                allow: "POST, GET, HEAD",
                operations: &[CREATE, READ_OWN],
            },
            Route {
                template: "/v1/orders/{orderId}",
                allow: "GET, HEAD",
                operations: &[READ_OWN],
            },
            Route {
                template: "/v1/orders/{orderId}/cancel",
                allow: "POST",
                operations: &[SETTLE],
            },
        ],
    },
    Part {
        prefix: "/v1/payments",
        other: "/v1/payments/{*path}",
        service: Service::Payments,
        routes: &[
            Route {
                template: "/v1/payments/confirm",
                allow: "POST",
                operations: &[SETTLE],
            },
            Route {
                template: "/v1/payments/webhooks/toss",
                allow: "POST",
                operations: &[WEBHOOK],
            },
        ],
    },
];

/// Finds what a request is for. `path` is as the client sent it, without the query.
pub(crate) fn find(method: &Method, path: &str) -> Result<Target, Miss> {
    let part = PARTS
        .iter()
        .find(|part| owns(part, path))
        .ok_or(Miss::Path)?;
    let Some(route) = part
        .routes
        .iter()
        .find(|route| matches(route.template, path))
    else {
        // A path that climbs could mean another one to somebody behind the gateway.
        if path.split('/').any(is_dots) {
            return Err(Miss::Path);
        }
        return Ok(Target {
            service: part.service,
            template: part.other,
            access: Access::Anybody,
            repeatable: method.is_idempotent(),
            keyed: false,
            large_body_bytes_max: None,
        });
    };
    let asked = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let operation = route
        .operations
        .iter()
        .find(|operation| operation.method == *asked)
        .ok_or(Miss::Method {
            template: route.template,
            allow: route.allow,
        })?;
    Ok(Target {
        service: part.service,
        template: route.template,
        access: operation.access,
        repeatable: operation.repeatable || method.is_idempotent(),
        keyed: operation.keyed,
        large_body_bytes_max: operation.large_body_bytes_max,
    })
}

fn owns(part: &Part, path: &str) -> bool {
    path.strip_prefix(part.prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn matches(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == given => {}
            (Some(wanted), Some(given))
                if wanted.starts_with('{') && !given.is_empty() && !is_dots(given) => {}
            _ => return false,
        }
    }
}

/// Whether a segment, however it is written, means this folder or the one above.
fn is_dots(segment: &str) -> bool {
    let dot = |rest: &str| -> Option<usize> {
        match rest.as_bytes() {
            [b'.', ..] => Some(1),
            [b'%', b'2', b'e' | b'E', ..] => Some(3),
            _ => None,
        }
    };
    let mut rest = segment;
    let mut dots = 0;
    while let Some(length) = dot(rest) {
        rest = &rest[length..];
        dots += 1;
    }
    rest.is_empty() && (dots == 1 || dots == 2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_claim_goes_to_promotions_with_a_token_and_may_be_repeated() {
        let target = find(&Method::POST, "/v1/time-sales/jeju-weekend/claims").unwrap();
        assert_eq!(
            target,
            Target {
                service: Service::Promotions,
                template: "/v1/time-sales/{id}/claims",
                access: Access::Token,
                repeatable: true,
                keyed: false,
                large_body_bytes_max: None,
            }
        );
    }

    #[test]
    fn signing_in_needs_no_token_and_is_not_repeated() {
        for path in ["/v1/users", "/v1/sessions", "/v1/sessions/refresh"] {
            let target = find(&Method::POST, path).unwrap();
            assert_eq!(
                (target.service, target.access, target.repeatable),
                (Service::Users, Access::NotChecked, false)
            );
        }
    }

    #[test]
    fn a_key_counts_only_where_the_service_looks_at_it() {
        for path in [
            "/v1/users",
            "/v1/orders",
            "/v1/stays",
            "/v1/stays/1/room-types",
        ] {
            let target = find(&Method::POST, path).unwrap();
            assert!(target.keyed && !target.repeatable, "{path}");
        }
        for path in ["/v1/sessions", "/v1/sessions/refresh", "/v1/users/else"] {
            assert!(!find(&Method::POST, path).unwrap().keyed, "{path}");
        }
    }

    #[test]
    fn stays_are_for_anybody_to_read_and_for_hosts_with_a_token_to_write() {
        for (method, path, access) in [
            (Method::GET, "/v1/stays", Access::Anybody),
            (Method::GET, "/v1/stays/1/availability", Access::Anybody),
            (Method::POST, "/v1/stays", Access::Token),
            (Method::POST, "/v1/stays/1/room-types", Access::Token),
            (Method::PUT, "/v1/room-types/1/calendar", Access::Token),
        ] {
            let target = find(&method, path).unwrap();
            assert_eq!(
                (target.service, target.access),
                (Service::Stays, access),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn a_payment_and_a_cancellation_need_a_token_and_may_be_repeated() {
        for (path, service) in [
            ("/v1/payments/confirm", Service::Payments),
            ("/v1/orders/1/cancel", Service::Orders),
        ] {
            let target = find(&Method::POST, path).unwrap();
            assert_eq!(
                (target.service, target.access, target.repeatable),
                (service, Access::Token, true)
            );
        }
    }

    #[test]
    fn the_payment_gateway_comes_without_a_token() {
        let target = find(&Method::POST, "/v1/payments/webhooks/toss").unwrap();
        assert_eq!(
            (target.service, target.access),
            (Service::Payments, Access::NotChecked)
        );
    }

    /// A service's document is made of the routes that it serves, so this is the table against the services.
    #[test]
    fn the_table_and_the_document_have_the_same_operations() {
        let mut document = crate::reference::document().unwrap();
        let mut documented = HashSet::new();
        for operation in document.operations() {
            let (method, path) = (operation.method.clone(), operation.path);
            let target =
                find(&method, path).unwrap_or_else(|miss| panic!("{method} {path}: {miss:?}"));
            assert_eq!(target.template, path);
            let token = match target.access {
                Access::Token => Some(true),
                // A service may have no use for the token.
                Access::Anybody => operation.token().and(Some(false)),
                Access::NotChecked => None,
            };
            assert_eq!(operation.token(), token, "the token of {method} {path}");
            assert_eq!(
                operation.is_keyed(),
                target.keyed,
                "the key of {method} {path}"
            );
            documented.insert((method, path.to_owned()));
        }
        for route in PARTS.iter().flat_map(|part| part.routes) {
            for operation in route.operations {
                let one = (operation.method.clone(), route.template.to_owned());
                assert!(documented.contains(&one), "{one:?} is not in the document");
            }
        }
    }

    #[test]
    fn reading_works_for_head_as_for_get() {
        assert_eq!(
            find(&Method::HEAD, "/v1/coupons"),
            find(&Method::GET, "/v1/coupons")
        );
    }

    #[test]
    fn a_known_path_with_another_method_says_what_is_allowed() {
        let miss = Miss::Method {
            template: "/v1/users/me",
            allow: "GET, PATCH, HEAD",
        };
        assert_eq!(find(&Method::DELETE, "/v1/users/me"), Err(miss));
    }

    #[test]
    fn other_paths_of_a_service_are_its_own_business() {
        let target = find(&Method::PATCH, "/v1/users/me/avatar").unwrap();
        assert_eq!(
            (target.service, target.template),
            (Service::Users, "/v1/users/{*path}")
        );
        assert_eq!(
            find(&Method::GET, "/v1/claims/").unwrap().template,
            "/v1/claims/{*path}"
        );
    }

    #[test]
    fn what_only_looks_like_a_served_path_is_not() {
        for path in [
            "/",
            "/v1",
            "/v1/usersx",
            "/v1/user",
            "//v1/users",
            "/V1/users",
            "/v1/order",
            "/v1/paymentsx/confirm",
            "/internal/v1/sales",
            "/internal/v1/orders/1/payment",
            "/v1/users/..",
            "/v1/users/../../internal",
            "/v1/users/%2E%2e/x",
            "/v1/time-sales/./claims",
            "/v1/coupons/%2e",
            "/v1/orders/1/../../internal",
        ] {
            assert_eq!(find(&Method::GET, path), Err(Miss::Path), "{path}");
        }
        assert!(find(&Method::GET, "/v1/time-sales/..jeju...").is_ok());
    }

    #[test]
    fn the_table_agrees_with_itself() {
        let mut seen = HashSet::new();
        for part in PARTS {
            for route in part.routes {
                assert!(
                    owns(part, route.template),
                    "{} is not under {}",
                    route.template,
                    part.prefix
                );
                assert!(
                    seen.insert(route.template),
                    "{} is there twice",
                    route.template
                );
                let mut allowed: Vec<_> = route
                    .operations
                    .iter()
                    .map(|operation| operation.method.as_str())
                    .collect();
                if allowed.contains(&"GET") {
                    allowed.push("HEAD");
                }
                assert_eq!(route.allow, allowed.join(", "), "{}", route.template);
            }
        }
    }
}
