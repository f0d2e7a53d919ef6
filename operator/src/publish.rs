//! Publishes what happened as Kubernetes events, each happening once.

use jiff::Timestamp;
use k8s_openapi::{
    api::events::v1::Event,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, Resource, ResourceExt as _, api::PostParams};

use crate::story::Happening;

/// Who reports, in every event.
const CONTROLLER: &str = "quokka-operator";

/// The API keeps a note of up to a kilobyte.
const NOTE_MAX: usize = 1_000;

/// Publishes events.
#[derive(Clone)]
pub(crate) struct Publisher {
    client: Client,
    instance: String,
}

impl Publisher {
    /// Publishes as `instance`, the pod's name.
    #[must_use]
    pub(crate) fn new(client: Client, instance: String) -> Self {
        Self { client, instance }
    }

    /// Publishes a happening of `resource`. Told before, by whomever, it is published already: the event's name says
    /// what happened to whom.
    ///
    /// # Errors
    ///
    /// The API doesn't take it.
    pub(crate) async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        resource: &K,
        happening: &Happening,
    ) -> Result<(), kube::Error> {
        let events: Api<Event> = Api::namespaced(
            self.client.clone(),
            &resource.namespace().unwrap_or_default(),
        );
        match events
            .create(&PostParams::default(), &self.event(resource, happening))
            .await
        {
            Ok(_) => {
                tracing::info!(
                    kind = %K::kind(&()),
                    sale = resource.name_any(),
                    reason = happening.reason,
                    note = happening.note,
                    "event"
                );
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            // Nothing new can be made in a namespace that is going; nobody will look for it there either.
            Err(kube::Error::Api(status))
                if status.is_forbidden() && status.message.contains("being terminated") =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn event<K: Resource<DynamicType = ()>>(&self, resource: &K, happening: &Happening) -> Event {
        let uid = resource.uid().unwrap_or_default();
        let name = format!(
            "{}.{}.{}.{}",
            resource.name_any(),
            uid.split('-').next().unwrap_or_default(),
            happening.reason.to_ascii_lowercase(),
            happening.occasion,
        );
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: resource.namespace(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            regarding: Some(resource.object_ref(&())),
            reason: Some(happening.reason.to_owned()),
            action: Some(happening.action.to_owned()),
            note: Some(happening.note.chars().take(NOTE_MAX).collect()),
            type_: Some(
                if happening.warning {
                    "Warning"
                } else {
                    "Normal"
                }
                .to_owned(),
            ),
            ..Event::default()
        }
    }
}
