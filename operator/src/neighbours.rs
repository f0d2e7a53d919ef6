//! The sales of the other kind, which share the names of a namespace, and so the topics.

use futures::FutureExt as _;
use kube::{
    Api,
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};

use crate::sale::SaleResource;

/// A sale as the watch shows it: one that can't be read is shown without its contents, and harms no other.
pub(crate) type Watched<K> = DeserializeGuard<K>;

/// The sales of one kind, as the controller of the other looks at them.
pub(crate) struct Neighbours<K: SaleResource> {
    namespace: String,
    /// For what must be true at the moment of asking.
    pub(crate) api: Api<K>,
    /// What the other controller's watch shows. It may be behind, and costs nothing.
    watched: Store<Watched<K>>,
}

impl<K: SaleResource> Neighbours<K> {
    pub(crate) fn new(namespace: &str, api: Api<K>, watched: Store<Watched<K>>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            api,
            watched,
        }
    }

    /// Whether a sale of the kind has the name and, with it, a topic.
    pub(crate) async fn has_topic(&self, name: &str) -> Result<bool, kube::Error> {
        let has = |sale: &K| sale.sale_status().is_some_and(|is| is.topic.is_some());
        if matches!(self.watched.wait_until_ready().now_or_never(), Some(Ok(()))) {
            let key = ObjectRef::new(name).within(&self.namespace);
            let found = self.watched.get(&key);
            return Ok(found.is_some_and(|sale| sale.0.as_ref().is_ok_and(has)));
        }
        // The other watch hasn't shown anything yet.
        Ok(self.api.get_opt(name).await?.is_some_and(|sale| has(&sale)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kube::{
        Client, Config,
        runtime::{reflector, watcher},
    };
    use quokka_crds::CouponCampaign;
    use serde_json::json;

    use super::*;

    fn campaign(name: &str, status: serde_json::Value) -> Watched<CouponCampaign> {
        let starts = "2026-12-01T03:00:00Z";
        serde_json::from_value(json!({
            "apiVersion": "quokka.travel/v1alpha1",
            "kind": "CouponCampaign",
            "metadata": { "name": name, "namespace": "quokka" },
            "spec": {
                "displayName": "First trip",
                "starts": starts,
                "ends": "2026-12-01T05:00:00Z",
                "quantity": 10,
                "discount": { "percent": 10 },
                "coupon": { "validFor": "720h" },
            },
            "status": status,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_taken_name_is_seen_without_asking_the_api() {
        let (watched, mut writer) = reflector::store();
        // Nobody answers there.
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let neighbours =
            Neighbours::<CouponCampaign>::new("quokka", Api::namespaced(client, "quokka"), watched);
        assert!(
            neighbours.has_topic("twin").await.is_err(),
            "asked before the watch has begun"
        );

        let taken = campaign("twin", json!({ "topic": "quokka.claims.quokka.twin" }));
        for event in [
            watcher::Event::Init,
            watcher::Event::InitApply(taken),
            watcher::Event::InitApply(campaign("waiting", json!({}))),
            watcher::Event::InitDone,
        ] {
            writer.apply_watcher_event(&event);
        }
        assert!(neighbours.has_topic("twin").await.unwrap());
        assert!(!neighbours.has_topic("waiting").await.unwrap());
        assert!(!neighbours.has_topic("free").await.unwrap());
    }
}
