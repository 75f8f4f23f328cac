"""The versions of the embedded stack. `docker-compose.yml` runs the same ones; a test compares them."""

from __future__ import annotations

POSTGRES = "18"
KAFKA = "4.3.1"
DEBEZIUM = "3.7.0.Final"
JETTY = "12.0.34"
LOG4J = "2.25.4"

# Debezium asks for older parts of Kafka: each that it shares with the worker is pinned to Kafka's version. A "!" keeps
# jgo from managing everything by that coordinate's parent, which would bring servlet and JSON libraries that are too
# old for the worker's REST server.
COORDINATES: tuple[str, ...] = (
    f"org.apache.kafka:kafka_2.13:{KAFKA}",
    f"org.apache.kafka:connect-runtime:{KAFKA}",
    f"org.apache.kafka:kafka-clients:{KAFKA}",
    f"org.apache.kafka:connect-api:{KAFKA}",
    f"io.debezium:debezium-connector-postgres:{DEBEZIUM}",
    f"org.apache.kafka:connect-json:{KAFKA}!",
    f"org.apache.kafka:connect-transforms:{KAFKA}!",
    f"org.eclipse.jetty.ee10:jetty-ee10-servlet:{JETTY}!",
    f"org.eclipse.jetty:jetty-security:{JETTY}!",
    f"org.eclipse.jetty:jetty-session:{JETTY}!",
    # Without a binding SLF4J is silent, and a failing component would have no last words to show.
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J}!",
)
