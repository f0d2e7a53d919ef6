use axum::{Router, routing::get as on_get};
use chassis::{
    http::{Json, Page, PageQuery},
    problem::Problem,
};

use super::{get, served};

/// A list of the numbers from 0 to 44.
async fn numbers(page: PageQuery) -> Result<Json<Page<u32>>, Problem> {
    let from = page.cursor::<u32>()?.map_or(0, |last| last + 1);
    let rows: Vec<u32> = (from..45).take(page.limit() as usize).collect();
    Ok(Json(page.page(rows, |last| *last)))
}

fn api() -> Router {
    served(Router::new().route("/numbers", on_get(numbers)))
}

#[tokio::test]
async fn pages_put_together_are_the_whole_list() {
    let api = api();
    let (mut all, mut sizes, mut path) = (Vec::new(), Vec::new(), "/numbers".to_owned());
    loop {
        let answer = get(&api, &path).await;
        let items = answer.body["items"].as_array().unwrap().clone();
        sizes.push(items.len());
        all.extend(items.iter().map(|item| item.as_u64().unwrap()));
        match answer.body["nextPageToken"].as_str() {
            Some(token) => path = format!("/numbers?pageToken={token}"),
            None => break,
        }
    }
    assert_eq!(all, (0..45).collect::<Vec<_>>());
    assert_eq!(sizes, [20, 20, 5]);
}

#[tokio::test]
async fn a_full_last_page_has_no_token() {
    let answer = get(&api(), "/numbers?pageSize=45").await;
    assert_eq!(answer.body["items"].as_array().unwrap().len(), 45);
    assert!(answer.body.get("nextPageToken").is_none());
}

#[tokio::test]
async fn a_wrong_size_or_token_is_refused() {
    let api = api();
    for query in [
        "pageSize=0",
        "pageSize=101",
        "pageSize=-1",
        "pageSize=x",
        "pageSize=1&pageSize=2",
        "size=1",
    ] {
        get(&api, &format!("/numbers?{query}"))
            .await
            .problem(400, "INVALID_REQUEST");
    }
    for token in ["!", "AAAA", "InRleHQi"] {
        let answer = get(&api, &format!("/numbers?pageToken={token}")).await;
        assert!(
            answer
                .problem(400, "INVALID_REQUEST")
                .starts_with("pageToken")
        );
        assert_eq!(answer.body["errors"][0]["parameter"], "pageToken");
    }
}
