//! Committing transactions.

use std::time::Instant;

use nix::errno::Errno;

use super::Error;
use super::abi;
use super::transaction::{Operation, Transaction};
use crate::nfnetlink::{self, Message, Received, Refusal, Socket};

/// A connection to the `nf_tables` of one network namespace: the one the calling thread was in when it opened it.
///
#[derive(Debug)]
pub struct Connection {
    pub(super) socket: Socket,
    /// Whether to try `NFT_MSG_DESTROY*`, which Linux 6.3 introduced.
    destroy: bool,
}

impl Connection {
    /// Connects. No call on the connection waits for the kernel beyond `deadline`.
    pub fn open(deadline: Instant) -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(deadline)?, destroy: true })
    }

    /// Treats the kernel as one older than 6.3, which has no tolerant deletions. Such a kernel is recognised anyway; this is
    /// for testing what is done then.
    pub fn assume_no_destroy(&mut self) {
        self.destroy = false;
    }

    /// Makes all changes of the transaction, or none.
    ///
    /// On a kernel older than 6.3 *destroy* operations are tried as deletions; those that find nothing to delete make the kernel
    /// refuse the transaction, which is then repeated without them.
    ///
    /// # Errors
    /// The first refusal, naming the operation and the object. Only after [`nfnetlink::Error::TimedOut`] and
    /// [`nfnetlink::Error::Lost`] it is not known whether the changes were made.
    pub fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        transaction.fault()?;
        let mut pending: Vec<&Operation> = transaction.operations.iter().collect();
        while !pending.is_empty() {
            let mut refusals = self.batch(&pending, transaction.generation)?;
            let is_unknown = |(index, refusal): &(usize, Refusal)| {
                let operation: &Operation = pending[*index];
                operation.destroy.is_some() && refusal.errno == Errno::EINVAL
            };
            if self.destroy && refusals.iter().any(is_unknown) {
                self.destroy = false;
                continue;
            }
            let is_tolerable = |(index, refusal): &(usize, Refusal)| {
                let operation: &Operation = pending[*index];
                operation.destroy.is_some() && refusal.errno == Errno::ENOENT
            };
            if let Some(first) = refusals.iter().position(|refusal| !is_tolerable(refusal)) {
                let (index, refusal) = refusals.swap_remove(first);
                return Err(refusal.into_error(&pending[index].what, &pending[index].request).into());
            }
            if refusals.is_empty() {
                return Ok(());
            }
            let mut index = 0..;
            pending.retain(|_| {
                let index = index.next();
                !refusals.iter().any(|(refused, _)| Some(*refused) == index)
            });
        }
        Ok(())
    }

    /// Waits for transactions under way, of anybody, and says whether `generation` is still the current one.
    ///
    /// An empty batch does that: the kernel takes its turn among the transactions, compares the generation, and commits nothing.
    pub(super) fn is_still(&mut self, generation: u32) -> Result<bool, Error> {
        let what = "compare the ruleset generation";
        let begin = self.socket.reserve(2);
        let mut bytes = Vec::new();
        boundary(abi::batch::BEGIN, Some(generation)).encode(&mut bytes, begin, 0);
        boundary(abi::batch::END, None).encode(&mut bytes, begin + 1, 0);
        self.socket.send(&bytes, &what)?;
        match self.socket.refusal_of(begin, &what)? {
            None => Ok(true),
            Some(Refusal { errno: Errno::ERESTART, .. }) => Ok(false),
            Some(refusal) => Err(refusal.into_error(&what, &boundary(abi::batch::BEGIN, None)).into()),
        }
    }

    /// Sends one batch, and gives what the kernel refused of it: the index of the operation, in order, and why.
    ///
    /// The kernel works through the whole batch even after a refusal, reports each, and then applies all or nothing. Only the
    /// last operation asks for an acknowledgement: refusals are reported unasked, and before it, so that the number of answers
    /// does not grow with the size of the batch and cannot overflow the receive buffer.
    fn batch(
        &mut self,
        operations: &[&Operation],
        generation: Option<u32>,
    ) -> Result<Vec<(usize, Refusal)>, Error> {
        let what = match operations {
            [only] => only.what.clone(),
            [first, rest @ ..] => format!("{} (and {} more)", first.what, rest.len()),
            [] => return Ok(Vec::new()),
        };
        let last = operations.len() - 1;
        let begin = self.socket.reserve(u32::try_from(operations.len() + 2).unwrap_or(u32::MAX));

        let mut bytes = Vec::new();
        let mut sequence = begin..;
        let mut next = || sequence.next().unwrap_or_default();
        let start = boundary(abi::batch::BEGIN, generation);
        start.encode(&mut bytes, next(), 0);
        for (index, operation) in operations.iter().enumerate() {
            let acknowledge = if index == last { libc::NLM_F_ACK } else { 0 };
            match operation.destroy.filter(|_| self.destroy) {
                Some(destroy) => {
                    let kind = u16::from_be_bytes([abi::batch::SUBSYSTEM, destroy]);
                    Message { kind, ..operation.request.clone() }.encode(&mut bytes, next(), acknowledge);
                }
                None => operation.request.encode(&mut bytes, next(), acknowledge),
            }
        }
        boundary(abi::batch::END, None).encode(&mut bytes, next(), 0);
        self.socket.send(&bytes, &what)?;

        let mut refusals = Vec::new();
        let mut refused_whole = None;
        let complete = self.socket.receive(&what, |number, received| {
            let Some(position) =
                number.checked_sub(begin).and_then(|position| usize::try_from(position).ok())
            else {
                return false; // left over from an earlier request
            };
            match received {
                // The batch itself: no nf_tables in this kernel, no permission, another generation, no memory.
                Received::Refused(refusal) if position == 0 => {
                    refused_whole = Some(refusal);
                    return true;
                }
                Received::Refused(refusal) => refusals.push((position - 1, refusal)),
                Received::Done | Received::Data(_) => {}
            }
            position == last + 1
        })?;
        match (refused_whole, generation) {
            (Some(Refusal { errno: Errno::ERESTART, .. }), Some(generation)) => {
                Err(Error::Conflict { generation })
            }
            (Some(refusal), _) => Err(refusal.into_error(&what, &start).into()),
            (None, _) if !complete && refusals.is_empty() => {
                Err(nfnetlink::Error::Lost { operation: what }.into())
            }
            (None, _) => Ok(refusals),
        }
    }
}

/// The message that begins or ends a batch.
fn boundary(kind: u16, generation: Option<u32>) -> Message {
    let mut boundary = Message::new(kind, 0, 0);
    boundary.resource = u16::from(abi::batch::SUBSYSTEM);
    if let Some(generation) = generation {
        boundary.attributes.be32(abi::batch::GENID, generation);
    }
    boundary
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::{Chain, Element, Family, Set, Table, Value};
    use super::*;

    const TABLE: Table = Table::new(Family::Inet, "ferrule");
    const PORTS: Set = Set::new("ports", &[super::super::DataType::InetService]);

    fn connect() -> Connection {
        Connection::open(Instant::now() + Duration::from_secs(20)).unwrap()
    }

    fn ports() -> Transaction {
        let mut transaction = Transaction::new();
        transaction.add_table(&TABLE);
        transaction.add_set(&TABLE, &PORTS);
        for port in 1..1000 {
            transaction.create_element(&TABLE, &PORTS, &Element::new([Value::Port(port)]));
        }
        transaction
    }

    /// A batch has one acknowledgement, however long it is; a thousand refusals have a thousand.
    #[test]
    fn a_full_receive_buffer_neither_fails_a_batch_nor_hides_what_was_refused() {
        let mut connection = connect();
        connection.socket.starve();
        connection.commit(&ports()).unwrap();
        let error = connection.commit(&ports()).unwrap_err();
        assert!(error.is_exists() && error.to_string().contains("'1'"), "{error:?}");
        // And what could not be delivered does not turn up in the next answer.
        assert_eq!(connection.elements(&TABLE, &PORTS).unwrap().len(), 999);
        connection.commit(&Transaction::new()).unwrap();
    }

    #[test]
    fn a_kernel_that_does_not_know_tolerant_deletions_is_recognised() {
        let mut connection = connect();
        let mut transaction = Transaction::new();
        transaction.destroy_table(&TABLE);
        transaction.add_table(&TABLE);
        transaction.add_chain(&TABLE, &Chain::regular("chain"));
        // A message that no kernel knows yet, as DESTROY is to one before 6.3.
        transaction.operations[0].destroy = Some(200);
        connection.commit(&transaction).unwrap();
        assert!(!connection.destroy && connection.chain(&TABLE, "chain").unwrap().is_some());
        connection.commit(&transaction).unwrap();
        assert!(connection.chain(&TABLE, "chain").unwrap().is_some());
    }
}
