//! The tiers that exist after the first start on one machine, so that a graph can name one at once. On AWS there are none:
//! each would be a stack there, and what runs there is the user's to choose.

use crate::failure::Failure;
use graphplane_crds::Tier;
use graphplane_crds::config::{Config, Environment, tiers_of};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};

/// Creates the enabled tiers of the development environment that do not exist yet; existing ones stay as they are,
/// since they are the user's to change.
///
/// # Errors
/// The API refuses a tier or cannot be asked.
pub(super) async fn ensure(client: &Client) -> Result<(), Failure> {
    let config = Config::built_in().map_err(|error| Failure::plain(error.to_string()))?;
    let api: Api<Tier> = Api::all(client.clone());
    for mut tier in tiers_of(&config, Environment::Development, false) {
        let name = tier.name_any();
        note_as_applied(&mut tier)?;
        match api.create(&PostParams::default(), &tier).await {
            Ok(_) => tracing::info!(tier = name, "created the tier"),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(Failure::plain(format!("creating the tier {name}: {error}"))),
        }
    }
    Ok(())
}

/// The names of all tiers, sorted.
///
/// # Errors
/// The API cannot be asked.
pub(super) async fn names(client: &Client) -> Result<Vec<String>, Failure> {
    let api: Api<Tier> = Api::all(client.clone());
    let mut names: Vec<String> = api
        .list(&ListParams::default())
        .await
        .map_err(|error| Failure::plain(format!("listing the tiers: {error}")))?
        .items
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    names.sort();
    Ok(names)
}

/// Leaves the note that `kubectl apply` leaves, so that a user who applies a tier of the same name later gets a clean
/// three-way merge and no warning.
fn note_as_applied(tier: &mut Tier) -> Result<(), Failure> {
    let text = serde_json::to_string(tier).map_err(|error| Failure::plain(error.to_string()))?;
    tier.annotations_mut()
        .insert("kubectl.kubernetes.io/last-applied-configuration".to_owned(), text);
    Ok(())
}
