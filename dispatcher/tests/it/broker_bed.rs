//! A virtual host of one test's own in the real RabbitMQ, and a door in front of it that can be shut.

use std::net::SocketAddr;

use invoke_protocol::envelope::{Envelope, Order};
use invoke_protocol::id::JobId;
use invoke_protocol::topology::{
    COMMAND_EXCHANGE, DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, DELIVERY_LIMIT,
};
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use url::Url;
use uuid::Uuid;

use crate::bed::{Dispatcher, eventually, required};

/// One test's part of the broker.
pub(crate) struct Broker {
    url: Url,
    management: Url,
    ca: String,
    vhost: String,
    client: Client,
    door: Door,
}

impl Broker {
    pub(crate) async fn new() -> Self {
        let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url: Url = required("INVOKE_TEST_AMQP_URL").parse().unwrap();
        let ca = required("INVOKE_TEST_AMQP_CA");
        let pem = std::fs::read(&ca).unwrap();
        let ca_certificate = Certificate::from_pem(&pem).unwrap();
        let broker = Self {
            management: required("INVOKE_TEST_AMQP_MANAGEMENT_URL").parse().unwrap(),
            client: Client::builder()
                .tls_certs_only([ca_certificate])
                .no_proxy()
                .build()
                .unwrap(),
            door: Door::new(url.socket_addrs(|| Some(5671)).unwrap()[0]).await,
            vhost: format!("test-{}", Uuid::new_v4().simple()),
            url,
            ca,
        };
        let vhost = broker.vhost.clone();
        broker
            .manage(Method::PUT, &["vhosts", &vhost], &json!({}))
            .await;
        let everything = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        let user = broker.url.username().to_owned();
        broker
            .manage(Method::PUT, &["permissions", &vhost, &user], &everything)
            .await;
        broker
    }

    /// Its dispatcher dials through the door; runners are told the broker's own address.
    pub(crate) async fn dispatcher(&self) -> Dispatcher {
        self.dispatcher_with("quorum").await
    }

    pub(crate) async fn dispatcher_with(&self, queue_type: &str) -> Dispatcher {
        let (inside, outside) = (self.through_the_door(), self.address());
        Dispatcher::start_with(&[
            "--amqp-url",
            inside.as_str(),
            "--amqp-public-url",
            outside.as_str(),
            "--amqp-management-url",
            self.management.as_str(),
            "--amqp-ca",
            &self.ca,
            "--amqp-queue-type",
            queue_type,
        ])
        .await
    }

    fn address(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path(&self.vhost);
        url
    }

    fn through_the_door(&self) -> Url {
        let mut url = self.address();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.door.address.port())).unwrap();
        url
    }

    pub(crate) fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Nobody gets through, and who was inside is thrown out.
    pub(crate) fn shut(&self) {
        self.door.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.door.open.send_replace(true);
    }

    pub(crate) async fn manage(
        &self,
        method: Method,
        path: &[&str],
        body: &Value,
    ) -> (StatusCode, Value) {
        let mut url = self.management.clone();
        url.path_segments_mut()
            .unwrap()
            .pop_if_empty()
            .push("api")
            .extend(path);
        let request = self
            .client
            .request(method, url)
            .basic_auth(self.url.username(), self.url.password());
        let response = request.json(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap_or_default())
    }

    pub(crate) async fn queue_exists(&self, cluster: &str) -> bool {
        let queue = format!("cmd.{cluster}");
        self.manage(Method::GET, &["queues", &self.vhost, &queue], &json!({}))
            .await
            .0
            == StatusCode::OK
    }

    pub(crate) async fn await_queue(&self, cluster: &str) {
        eventually("the queue is declared", async || {
            self.queue_exists(cluster).await.then_some(())
        })
        .await;
    }

    /// As an operator would, by mistake; or as a broker that lost its memory.
    pub(crate) async fn delete_queue(&self, cluster: &str) {
        let queue = format!("cmd.{cluster}");
        let (status, _) = self
            .manage(Method::DELETE, &["queues", &self.vhost, &queue], &json!({}))
            .await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }

    /// Messages for the cluster have nowhere to go. Unlike a deletion, it is done when it is answered:
    /// RabbitMQ 3.10 cannot always declare a quorum queue again that it is still deleting.
    pub(crate) async fn unbind_queue(&self, cluster: &str) {
        let queue = format!("cmd.{cluster}");
        let path = [
            "bindings",
            &self.vhost,
            "e",
            COMMAND_EXCHANGE,
            "q",
            &queue,
            &queue,
        ];
        eventually("the binding is there", async || {
            (self.manage(Method::DELETE, &path, &json!({})).await.0 == StatusCode::NO_CONTENT)
                .then_some(())
        })
        .await;
    }

    /// A queue of the cluster's name that is not as we declare it, as an older setting leaves it behind.
    pub(crate) async fn declare_other_queue(&self, cluster: &str) {
        let queue = format!("cmd.{cluster}");
        let classic = json!({ "durable": true, "arguments": { "x-queue-type": "classic" } });
        let (status, _) = self
            .manage(Method::PUT, &["queues", &self.vhost, &queue], &classic)
            .await;
        assert_eq!(status, StatusCode::CREATED);
    }

    /// A connection of its own, as this user, or as the administrator.
    pub(crate) async fn connect(
        &self,
        user: Option<(&str, &str)>,
    ) -> lapin::Result<(Connection, Channel)> {
        let mut url = self.address();
        if let Some((name, password)) = user {
            url.set_username(name).unwrap();
            url.set_password(Some(password)).unwrap();
        }
        let tls = OwnedTLSConfig {
            identity: None,
            cert_chain: Some(std::fs::read_to_string(&self.ca).unwrap()),
        };
        let runtime = lapin::runtime::default_runtime()?;
        let properties = ConnectionProperties::default();
        let connection =
            Connection::connect_with_config(url.as_str(), properties, tls, runtime).await?;
        let channel = connection.create_channel().await?;
        Ok((connection, channel))
    }

    /// Waits for the next message of a cluster and takes it away.
    pub(crate) async fn next_message(&self, cluster: &str) -> Envelope {
        let queue = format!("cmd.{cluster}");
        let mut open = None;
        let message = eventually("a message arrives", async || {
            let (connection, channel) = match open.take() {
                Some(open) => open,
                None => self.connect(None).await.unwrap(),
            };
            // A channel that asks for a queue that is not there yet is closed: then begin again.
            let look = channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
            let message = look.await.ok()?;
            open = Some((connection, channel));
            message
        })
        .await;
        message
            .delivery
            .acker
            .ack(BasicAckOptions::default())
            .await
            .unwrap();
        serde_json::from_slice(&message.delivery.data).unwrap()
    }

    /// Takes each message of a cluster that is this job's and does not deal with it, until the broker has
    /// had enough of that. As a runner that crashes on it.
    pub(crate) async fn crash_on(&self, cluster: &str, job: JobId) {
        let queue = format!("cmd.{cluster}");
        let (_connection, channel) = self.connect(None).await.unwrap();
        let mut deliveries = 0;
        eventually("the broker has had enough", async || {
            let look = channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
            let Some(message) = look.await.unwrap() else {
                return (deliveries > DELIVERY_LIMIT).then_some(());
            };
            let envelope: Envelope = serde_json::from_slice(&message.delivery.data).unwrap();
            let Order::V1(order) = Order::from_payload(&envelope.payload).unwrap();
            assert_eq!(order.job, job, "the only one in the queue");
            deliveries += 1;
            let back = BasicNackOptions {
                requeue: true,
                multiple: false,
            };
            message.delivery.acker.nack(back).await.unwrap();
            None
        })
        .await;
    }

    /// Puts something among the dead letters, as only an administrator can.
    pub(crate) async fn forge_dead_letter(&self, body: &[u8], headers: FieldTable) {
        let (_connection, channel) = self.connect(None).await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        let properties = BasicProperties::default().with_headers(headers);
        let options = BasicPublishOptions::default();
        let exchange = DEAD_LETTER_EXCHANGE.into();
        let publish = channel.basic_publish(exchange, "".into(), options, body, properties);
        publish.await.unwrap().await.unwrap();
    }

    /// How many dead letters nobody has taken.
    pub(crate) async fn dead_letters(&self) -> u64 {
        let path = ["queues", &self.vhost, DEAD_LETTER_QUEUE];
        let (_, queue) = self.manage(Method::GET, &path, &Value::Null).await;
        queue["messages"].as_u64().unwrap_or(u64::MAX)
    }

    /// Removes the virtual host with everything in it.
    pub(crate) async fn remove(self, users: &[&str]) {
        for user in users {
            self.manage(Method::DELETE, &["users", user], &json!({}))
                .await;
        }
        self.manage(Method::DELETE, &["vhosts", &self.vhost], &json!({}))
            .await;
    }
}

/// A TCP relay to the broker.
struct Door {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Door {
    async fn new(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(true);
        let opened = open.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(relay(stream, target, opened.clone()));
            }
        });
        Self { address, open }
    }
}

async fn relay(mut inside: TcpStream, target: SocketAddr, mut open: watch::Receiver<bool>) {
    if !*open.borrow_and_update() {
        return;
    }
    let Ok(mut outside) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}
