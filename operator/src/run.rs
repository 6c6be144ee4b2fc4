//! The operator as a whole: leadership, watches, controllers, and their end.

use crate::agent::Agents;
use crate::backup::ObjectStore;
use crate::context::{Context, Restarts};
use crate::costs;
use crate::error::{Error, already_exists};
use crate::events::Events;
use crate::hub::Hub;
use crate::kinds::{Hubs, Managed};
use crate::leader::Leader;
use crate::mappers as map;
use crate::orphans;
use crate::placer::Placer;
use crate::provider::aws::Aws;
use crate::provider::local::Local;
use crate::provider::{Listing, Provider};
use crate::reconcile::{Reconcile, after_error, reconcile};
use crate::registry::{self, Registries};
use crate::settings::{ProviderChoice, Settings};
use futures::{Stream, StreamExt};
use graphplane_core::backoff::{Backoff, Limits};
use graphplane_crds::annotations::NODE_LABEL;
use graphplane_crds::{
    Backup, BackupSchedule, Graph, GraphNode, GraphVolume, Replica, SYSTEM_NAMESPACE, Subgraph, Tier,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::runtime::controller::Config;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::runtime::{Controller, controller};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs the operator until `stop` is cancelled: reconciles that run are finished, then the provider is told. It leads until
/// they are; when it leads no more, whatever it does is dropped at once.
///
/// # Errors
/// When it cannot begin, for instance because the data directory cannot be used; and [`Error::LostLeadership`] when
/// another operator took over, upon which the caller should end the process.
pub async fn run(client: Client, settings: Settings, stop: CancellationToken) -> Result<(), Error> {
    // The client for agents cannot be made without one; where the process has one already, that stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let leader = settings
        .leader_election
        .clone()
        .map(|election| Leader::new(client.clone(), election));
    if let Some(leader) = &leader
        && !leader.acquire(&stop).await
    {
        return Ok(());
    }
    settings.metrics.leading(true);
    let cluster_id = match &settings.cluster_id {
        Some(id) => id.clone(),
        None => system_namespace_uid(&client).await?,
    };
    let provider: Arc<dyn Provider> = match &settings.provider {
        ProviderChoice::Local(local) => Arc::new(Local::open(local.clone()).await?),
        ProviderChoice::Aws(aws) => Arc::new(Aws::open((**aws).clone(), cluster_id.clone()).await),
        ProviderChoice::Custom(provider) => provider.clone(),
    };
    let worked = CancellationToken::new();
    let lead = async {
        match &leader {
            Some(leader) => leader.keep(&worked).await,
            None => {
                worked.cancelled().await;
                Ok(())
            }
        }
    };
    let work = async {
        let result = act(client, &settings, cluster_id, provider.clone(), stop.child_token()).await;
        worked.cancel();
        result
    };
    tokio::pin!(lead);
    // Its successor begins when the lease is given back or over: nothing of this one may be under way by then.
    let (result, led) = tokio::select! {
        led = &mut lead => (Ok(()), led),
        result = work => (result, lead.await),
    };
    settings.metrics.leading(false);
    // Another operator that leads now looks after the machines.
    provider.shutdown(settings.stop_nodes_on_shutdown && led.is_ok()).await;
    result.and(led)
}

async fn act(
    client: Client,
    settings: &Settings,
    cluster_id: String,
    provider: Arc<dyn Provider>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let metrics = settings.metrics.clone();
    let hubs = Arc::new(Hubs::new());
    let (events, send_events) = Events::new(client.clone(), stop.clone());
    let store = settings
        .object_store_url
        .as_deref()
        .map(|url| ObjectStore::open(url, metrics.clone()))
        .transpose()?;
    let agents = Agents::new(metrics.clone())
        .map_err(|error| Error::Settings(format!("no HTTP client for agents can be made: {error}")))?;
    let ctx = Arc::new(Context {
        client: client.clone(),
        hubs: hubs.clone(),
        listing: Listing::new(provider.clone(), metrics.clone()),
        agents,
        store,
        placer: Placer::default(),
        events,
        metrics: metrics.clone(),
        cluster_id,
        prices: costs::prices(&settings.provider)?,
        resync: settings.resync,
        watched_since: Timestamp::now(),
        backoff: Mutex::new(Backoff::new(Limits::default())),
        restarts: Mutex::new(Restarts::default()),
    });
    metrics.count_conditions_with({
        let hubs = hubs.clone();
        move || hubs.count_conditions()
    });

    // Watches outlive the controllers: a reconcile that is being finished still reads.
    let watching = CancellationToken::new();
    let _end_watches = watching.clone().drop_guard();
    let mut background = JoinSet::new();
    background.spawn(send_events);
    let mut controllers = controllers(&ctx, provider.as_ref(), settings, &stop);
    let registries = match (&settings.registries, &settings.provider) {
        (None, ProviderChoice::Aws(aws)) => Registries::named_by(aws).await,
        (registries, _) => registries.clone(),
    };
    if let Some(registries) = registries {
        controllers.push(Box::pin(registry::run(ctx.clone(), registries, stop.clone())));
    }
    watch_all(&hubs, &client, &mut background, &watching);
    let controllers = async {
        hubs_ready(&hubs).await?;
        tracing::info!(provider = provider.name(), "the operator acts");
        // A task each, so that a busy kind does not hold up the others.
        let mut running: JoinSet<()> = controllers.into_iter().collect();
        running.spawn(orphans::run(ctx.clone(), settings.orphans, stop.clone()));
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        Ok(())
    };
    tokio::select! {
        result = controllers => result,
        // Before everything is known there is nothing to finish.
        () = not_ready_and(&hubs, &stop) => Ok(()),
    }
}

/// Resolves when `stop` comes before the watches are complete.
async fn not_ready_and(hubs: &Hubs, stop: &CancellationToken) {
    tokio::select! {
        biased;
        ready = hubs_ready(hubs) => match ready {
            Ok(()) => std::future::pending().await,
            // The other branch reports it.
            Err(_) => std::future::pending().await,
        },
        () = stop.cancelled() => {}
    }
}

async fn hubs_ready(hubs: &Hubs) -> Result<(), Error> {
    tokio::try_join!(
        hubs.tiers.ready(),
        hubs.graphs.ready(),
        hubs.subgraphs.ready(),
        hubs.replicas.ready(),
        hubs.backups.ready(),
        hubs.schedules.ready(),
        hubs.nodes.ready(),
        hubs.volumes.ready(),
        hubs.leases.ready(),
        hubs.secrets.ready(),
    )
    .map(|_| ())
}

fn watch_all(hubs: &Hubs, client: &Client, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
    let all = watcher::Config::default;
    tasks.spawn(hubs.tiers.run(Api::all(client.clone()), all(), stop.clone()));
    tasks.spawn(hubs.graphs.run(Api::all(client.clone()), all(), stop.clone()));
    tasks.spawn(hubs.subgraphs.run(Api::all(client.clone()), all(), stop.clone()));
    tasks.spawn(hubs.replicas.run(Api::all(client.clone()), all(), stop.clone()));
    tasks.spawn(hubs.backups.run(Api::all(client.clone()), all(), stop.clone()));
    tasks.spawn(hubs.schedules.run(Api::all(client.clone()), all(), stop.clone()));
    tasks.spawn(hubs.nodes.run(Api::all(client.clone()), all(), stop.clone()));
    tasks.spawn(hubs.volumes.run(Api::all(client.clone()), all(), stop.clone()));
    tasks.spawn(
        hubs.leases
            .run(Api::namespaced(client.clone(), SYSTEM_NAMESPACE), all(), stop.clone()),
    );
    // Other Secrets of the namespace, such as keys of callers, are none of the operator's business.
    let of_nodes = all().labels(NODE_LABEL);
    tasks.spawn(hubs.secrets.run(
        Api::namespaced(client.clone(), SYSTEM_NAMESPACE),
        of_nodes,
        stop.clone(),
    ));
}

type Running = futures::future::BoxFuture<'static, ()>;

fn controllers(
    ctx: &Arc<Context>,
    provider: &dyn Provider,
    settings: &Settings,
    stop: &CancellationToken,
) -> Vec<Running> {
    let hubs = &ctx.hubs;
    let died = {
        let ctx = ctx.clone();
        provider.changes().map(move |node| {
            ctx.listing.invalidate();
            ObjectRef::<GraphNode>::new(&node)
        })
    };
    let graphs = Triggers::<Graph>::new(hubs, &hubs.graphs)
        .on(&hubs.nodes, map::node_to_graphs)
        .on(&hubs.tiers, map::tier_to_graphs)
        .on(&hubs.volumes, map::volume_to_graphs)
        .on(&hubs.backups, |_, b| map::backup_to_graph(b))
        .on(&hubs.subgraphs, |_, s| map::subgraph_to_graph(s))
        .on(&hubs.graphs, map::graph_to_graphs)
        .on(&hubs.leases, map::lease_to_graphs);
    let subgraphs = Triggers::<Subgraph>::new(hubs, &hubs.subgraphs)
        .on(&hubs.graphs, map::graph_to_subgraphs)
        .on(&hubs.nodes, map::node_to_subgraphs)
        .on(&hubs.backups, |_, b| map::backup_to_subgraph(b))
        .on(&hubs.subgraphs, map::subgraph_to_subgraphs)
        .on(&hubs.leases, map::lease_to_subgraphs);
    let replicas = Triggers::<Replica>::new(hubs, &hubs.replicas)
        .on(&hubs.graphs, map::graph_to_replicas)
        .on(&hubs.nodes, map::node_to_replicas)
        .on(&hubs.leases, map::lease_to_replicas);
    let nodes = Triggers::<GraphNode>::new(hubs, &hubs.nodes)
        .on(&hubs.volumes, map::volume_to_nodes)
        .on(&hubs.tiers, map::tier_to_nodes)
        .on(&hubs.leases, |_, l| map::lease_to_node(l))
        .on(&hubs.secrets, |_, s| map::secret_to_node(s))
        .on(&hubs.graphs, |_, g| map::graph_to_node(g))
        .on(&hubs.subgraphs, |_, s| map::subgraph_to_node(s))
        .also(died);
    let volumes = Triggers::<GraphVolume>::new(hubs, &hubs.volumes)
        .on(&hubs.nodes, |_, n| map::node_to_volume(n))
        .on(&hubs.graphs, |_, g| map::graph_to_volume(g))
        .on(&hubs.subgraphs, map::subgraph_to_volume)
        .on(&hubs.leases, map::lease_to_volume);
    let tiers = Triggers::<Tier>::new(hubs, &hubs.tiers)
        .on(&hubs.nodes, |_, n| map::node_to_tier(n))
        .on(&hubs.volumes, |_, v| map::volume_to_tier(v))
        .on(&hubs.graphs, |_, g| map::graph_to_tier(g));
    let backups = Triggers::<Backup>::new(hubs, &hubs.backups)
        .on(&hubs.graphs, map::graph_to_backups)
        .on(&hubs.nodes, map::node_to_backups);
    let schedules = Triggers::<BackupSchedule>::new(hubs, &hubs.schedules)
        .on(&hubs.backups, map::backup_to_schedules)
        .on(&hubs.graphs, map::graph_to_schedules);
    vec![
        graphs.run(ctx, settings, stop),
        subgraphs.run(ctx, settings, stop),
        nodes.run(ctx, settings, stop),
        volumes.run(ctx, settings, stop),
        tiers.run(ctx, settings, stop),
        backups.run(ctx, settings, stop),
        schedules.run(ctx, settings, stop),
        replicas.run(ctx, settings, stop),
    ]
}

/// What makes a controller look at its objects.
struct Triggers<K: Managed> {
    hubs: Arc<Hubs>,
    controller: Controller<K>,
}

impl<K: Reconcile> Triggers<K> {
    fn new(hubs: &Arc<Hubs>, own: &Hub<K>) -> Self {
        let cache = own.cache().clone();
        let store = cache.store();
        // The echo of a status that a pass wrote is no reason for another pass.
        let news = own
            .changes()
            .filter(move |object| std::future::ready(!cache.is_echo(&**object)));
        Self {
            hubs: hubs.clone(),
            controller: Controller::for_shared_stream(news, store),
        }
    }

    fn on<T>(mut self, other: &Hub<T>, map: impl Fn(&Hubs, &T) -> Vec<ObjectRef<K>> + Send + Sync + 'static) -> Self
    where
        T: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let hubs = self.hubs.clone();
        let refs = other
            .changes()
            .flat_map(move |object| futures::stream::iter(map(&hubs, &object)));
        self.controller = self.controller.reconcile_on(refs);
        self
    }

    fn also(mut self, refs: impl Stream<Item = ObjectRef<K>> + Send + 'static) -> Self {
        self.controller = self.controller.reconcile_on(refs);
        self
    }

    fn run(self, ctx: &Arc<Context>, settings: &Settings, stop: &CancellationToken) -> Running {
        let stop = stop.clone().cancelled_owned();
        let config = Config::default().concurrency(settings.concurrency);
        let controller = self.controller.with_config(config).graceful_shutdown_on(stop);
        let results = controller.run(
            reconcile::<K>,
            |object, error, ctx| after_error(object, error, ctx),
            ctx.clone(),
        );
        let finished = results.for_each(|result| {
            match result {
                // Told of by `after_error`, or no news.
                Ok(_) | Err(controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(kind = K::KIND, %error, "a controller is in trouble"),
            }
            std::future::ready(())
        });
        Box::pin(finished)
    }
}

/// The UID of the system namespace, which is made where it is missing: it lives as long as the cluster's state.
async fn system_namespace_uid(client: &Client) -> Result<String, Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut wanted = Namespace::default();
    wanted.metadata.name = Some(SYSTEM_NAMESPACE.to_owned());
    let found = match api.get_opt(SYSTEM_NAMESPACE).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => match api.create(&PostParams::default(), &wanted).await {
            Err(error) if already_exists(&error) => api.get(SYSTEM_NAMESPACE).await,
            result => result,
        },
        Err(error) => Err(error),
    };
    let found = found.map_err(Error::kube(format!("find namespace {SYSTEM_NAMESPACE}")))?;
    found.uid().ok_or(Error::Incomplete("a UID"))
}
