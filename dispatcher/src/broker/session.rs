//! One connection: what is declared on it, and how a message is published so that it is known what
//! became of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use invoke_protocol::id::ClusterName;
use invoke_protocol::topology::{
    COMMAND_EXCHANGE, DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, DELIVERY_LIMIT, command_queue,
};
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind, PublisherConfirm,
};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::quarantine::Quarantine;
use super::{Error, PATIENCE, Target};
use crate::options::QueueType;

/// How many dead letters are delivered before the first is acknowledged.
const DEAD_LETTERS_AT_ONCE: u16 = 16;

/// A connection with its exchanges declared, ready to publish.
pub struct Session {
    pub(super) connection: Connection,
    channel: Channel,
    queue_type: QueueType,
    /// Also held while one is being declared: when the broker then closes something, it is because of
    /// that one.
    declared: Mutex<HashSet<ClusterName>>,
    quarantine: Arc<Quarantine>,
    ended: CancellationToken,
}

/// An order on its way to a cluster.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where to.
    pub cluster: ClusterName,
    /// Its own id, different from that of any other message that is under way.
    pub id: String,
    /// What it says.
    pub body: Vec<u8>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The broker has it, and answers for it.
    Taken,
    /// There is no queue for it. The broker confirms such a message too, and forgets it.
    Unroutable(String),
}

impl Session {
    pub(super) async fn open(
        target: &Target,
        quarantine: Arc<Quarantine>,
        ended: CancellationToken,
    ) -> Result<Self, Error> {
        let properties =
            ConnectionProperties::default().with_connection_name("invoke-dispatcher".into());
        let tls = OwnedTLSConfig {
            identity: None,
            cert_chain: target.ca_pem.clone(),
        };
        let open = async {
            let runtime = lapin::runtime::default_runtime()?;
            let connection =
                Connection::connect_uri_with_config(target.uri.clone(), properties, tls, runtime)
                    .await?;
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            let session = Self {
                connection,
                channel,
                queue_type: target.queue_type,
                declared: Mutex::default(),
                quarantine,
                ended,
            };
            session.declare_exchanges().await?;
            Ok(session)
        };
        tokio::time::timeout(PATIENCE, open)
            .await
            .map_err(|_| Error::Slow("connecting"))?
    }

    /// Whether the broker takes nothing at the moment.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Whether connection and channel are as they were: a declaration that is refused closes a channel
    /// of its own, and mostly nothing else.
    pub(super) fn is_sound(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Cancelled when no more is to be published: the connection is in doubt, or the program stops.
    #[must_use]
    pub const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Runs a part of the session; when it ends, so does the session.
    pub(super) async fn until_it_ends(
        &self,
        part: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let verdict = part.await;
        self.ended.cancel();
        verdict
    }

    /// Publishes messages and waits until the broker answers for each of them. What became of them, in
    /// their order.
    ///
    /// The client library hands a returned message to whichever confirm comes next, and confirms come in
    /// any order. So a return is told by the id of its message, and only when all confirms are in: the
    /// broker sends each return before its own confirm.
    ///
    /// An error means that it is unknown whether the broker has the message, and the session must end.
    pub async fn publish(&self, messages: &[Message]) -> Vec<Result<Delivery, Error>> {
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            sent.push(self.send(message).await);
        }
        let mut confirmations = Vec::with_capacity(sent.len());
        // One for all: a frozen broker must not cost a time-out for each.
        let mut deadline = Instant::now() + PATIENCE;
        for sent in sent {
            confirmations.push(match sent {
                Ok(confirm) => self.confirmed(confirm, &mut deadline).await,
                Err(error) => Err(error),
            });
        }
        let returned: HashMap<String, String> = confirmations.iter().filter_map(returned).collect();
        // Somebody deleted the queue or its binding: declare it before the next message.
        let mut declared = self.declared.lock().await;
        declared.retain(|cluster| {
            !messages
                .iter()
                .any(|message| message.cluster == *cluster && returned.contains_key(&message.id))
        });
        let deliveries = messages.iter().zip(confirmations);
        deliveries
            .map(|(message, confirmation)| delivery(confirmation, returned.get(&message.id)))
            .collect()
    }

    async fn send(&self, message: &Message) -> Result<PublisherConfirm, Error> {
        self.ensure_queue(&message.cluster).await?;
        // `mandatory`: without it the broker confirms a message that no queue takes, and drops it.
        let options = BasicPublishOptions {
            mandatory: !invoke_hooks::sabotaged("no-mandatory"),
            immediate: false,
        };
        let properties = BasicProperties::default()
            // 2, persistent: it outlives a restart of the broker.
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(message.id.as_str().into());
        let key = command_queue(&message.cluster).into();
        let publish = self.channel.basic_publish(
            COMMAND_EXCHANGE.into(),
            key,
            options,
            &message.body,
            properties,
        );
        Ok(publish.await?)
    }

    /// Waits for a confirm; not long, unless the broker has said that it will be.
    async fn confirmed(
        &self,
        mut confirm: PublisherConfirm,
        deadline: &mut Instant,
    ) -> Result<Confirmation, Error> {
        loop {
            match tokio::time::timeout_at(*deadline, &mut confirm).await {
                Ok(confirmation) => return Ok(confirmation?),
                Err(_elapsed) if self.is_blocked() && !self.ended.is_cancelled() => {
                    *deadline = Instant::now() + PATIENCE;
                }
                Err(_elapsed) => return Err(Error::Slow("a confirm")),
            }
        }
    }

    /// All exchanges, and where dead letters go.
    async fn declare_exchanges(&self) -> Result<(), Error> {
        // Durable: a restart of the broker must not unbind every cluster.
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let plain = FieldTable::default;
        // Direct: one cluster, one key. Fanout: whatever is dead goes to the one place.
        let kinds = [
            (COMMAND_EXCHANGE, ExchangeKind::Direct),
            (DEAD_LETTER_EXCHANGE, ExchangeKind::Fanout),
        ];
        for (exchange, kind) in kinds {
            self.channel
                .exchange_declare(exchange.into(), kind, durable, plain())
                .await?;
        }
        self.declare_queue(&self.channel, DEAD_LETTER_QUEUE, plain())
            .await?;
        let (queue, exchange) = (DEAD_LETTER_QUEUE.into(), DEAD_LETTER_EXCHANGE.into());
        self.channel
            .queue_bind(
                queue,
                exchange,
                "".into(),
                QueueBindOptions::default(),
                plain(),
            )
            .await?;
        Ok(())
    }

    /// A cluster's queue with its binding, once a session.
    ///
    /// # Errors
    /// [`Error::Quarantined`] if the broker does not declare it, now or a moment ago; nothing else is in
    /// doubt then. After any other, the session must end.
    pub(super) async fn ensure_queue(&self, cluster: &ClusterName) -> Result<(), Error> {
        let mut declared = self.declared.lock().await;
        if declared.contains(cluster) {
            return Ok(());
        }
        if let Some(why) = self.quarantine.reason(cluster, Instant::now()) {
            return Err(Error::Quarantined(why));
        }
        if !self.is_sound() {
            // Closed because of another, which is known for it.
            return Err(Error::Ended);
        }
        let error = match self.declare_command_queue(cluster).await {
            Ok(()) => {
                self.quarantine.healed(cluster);
                declared.insert(cluster.clone());
                return Ok(());
            }
            Err(error) => error,
        };
        // The broker's own word about this queue, not a connection that broke meanwhile.
        let Some(why) = refusal(&error) else {
            return Err(error);
        };
        self.quarantine.failed(cluster, why.clone(), Instant::now());
        if self.is_sound() {
            Err(Error::Quarantined(why))
        } else {
            Err(error)
        }
    }

    /// What the broker has put aside. On a channel of its own: a mistake here must not cost a confirm.
    pub(super) async fn dead_letters(&self) -> Result<Consumer, Error> {
        let channel = in_time("opening a channel", self.connection.create_channel()).await?;
        // Each is on record before the next is asked for; a few are on their way meanwhile.
        let at_once = channel.basic_qos(DEAD_LETTERS_AT_ONCE, BasicQosOptions::default());
        in_time("limiting deliveries", at_once).await?;
        let consume = channel.basic_consume(
            DEAD_LETTER_QUEUE.into(),
            "".into(),
            // Acknowledged by hand, after it is on record; not exclusive, as several dispatchers share it.
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        in_time("consuming dead letters", consume).await
    }

    async fn declare_command_queue(&self, cluster: &ClusterName) -> Result<(), Error> {
        let queue = command_queue(cluster);
        let mut arguments = FieldTable::default();
        // What a runner rejects, or fails on again and again, is kept for people to look at.
        let exchange = AMQPValue::LongString(DEAD_LETTER_EXCHANGE.into());
        arguments.insert("x-dead-letter-exchange".into(), exchange);
        // The other kind of queue knows no such limit, and refuses the argument.
        if self.queue_type == QueueType::Quorum {
            let limit = AMQPValue::LongUInt(DELIVERY_LIMIT);
            arguments.insert("x-delivery-limit".into(), limit);
        }
        let channel = in_time("opening a channel", self.connection.create_channel()).await?;
        self.declare_queue(&channel, &queue, arguments).await?;
        let (name, key) = (queue.as_str().into(), queue.as_str().into());
        let bind = channel.queue_bind(
            name,
            COMMAND_EXCHANGE.into(),
            key,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        in_time("binding a queue", bind).await?;
        in_time("closing a channel", channel.close(200, "done".into())).await
    }

    async fn declare_queue(
        &self,
        channel: &Channel,
        name: &str,
        mut arguments: FieldTable,
    ) -> Result<(), Error> {
        // Quorum: written to disk on most nodes before the confirm. Given always, because a broker's
        // default may be another, and one that differs later is refused.
        let queue_type = AMQPValue::LongString(self.queue_type.as_str().into());
        arguments.insert("x-queue-type".into(), queue_type);
        let options = QueueDeclareOptions {
            // Orders wait through a restart of the broker.
            durable: true,
            // Several replicas of a runner consume it, and it waits when there is none.
            exclusive: false,
            // A cluster that is offline has no consumer, and its orders must not go with it.
            auto_delete: false,
            passive: false,
            nowait: false,
        };
        let declare = channel.queue_declare(name.into(), options, arguments);
        in_time("declaring a queue", declare).await.map(drop)
    }
}

async fn in_time<T>(
    what: &'static str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    let answer = tokio::time::timeout(PATIENCE, call).await;
    Ok(answer.map_err(|_elapsed| Error::Slow(what))??)
}

/// What the broker said against it, if it was the broker that did.
fn refusal(error: &Error) -> Option<String> {
    match error {
        Error::Amqp(error) => match error.kind() {
            ErrorKind::ProtocolError(refusal) => Some(refusal.to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn delivery(
    confirmation: Result<Confirmation, Error>,
    returned: Option<&String>,
) -> Result<Delivery, Error> {
    match (confirmation, returned) {
        (Err(Error::Quarantined(why)), _) => Ok(Delivery::Unroutable(why)),
        (Err(error), _) => Err(error),
        (Ok(_), Some(why)) => Ok(Delivery::Unroutable(why.clone())),
        (Ok(Confirmation::Ack(_)), None) => Ok(Delivery::Taken),
        (Ok(Confirmation::Nack(_) | Confirmation::NotRequested), None) => Err(Error::Nacked),
    }
}

/// The id of the message that a confirmation brought back, and why.
fn returned(confirmation: &Result<Confirmation, Error>) -> Option<(String, String)> {
    let Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) = confirmation
    else {
        return None;
    };
    let id = message.delivery.properties.message_id().as_ref()?;
    Some((id.to_string(), message.reply_text.to_string()))
}
