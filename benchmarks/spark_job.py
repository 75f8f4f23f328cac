"""Spark structured streaming from Kafka to Delta, as its documentation writes it: the events as they are ("land"), or
the two questions of benchmarks/streams.py ("windows", "join").

`benchmarks.peers` runs it in Spark's own environment: `spark_job.py BOOTSTRAP TOPIC FOLDER IVY CORES QUESTION SCHEMA`.

Prints the seconds of the second of two equal runs of one session as JSON: the first warms the JVM.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

PACKAGES = "io.delta:delta-spark_4.2_2.13:4.4.0,org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"


def main() -> None:
    bootstrap, topic, folder, ivy, cores, question, schema = sys.argv[1:]
    spark = (
        SparkSession.builder.master(f"local[{cores}]")
        .config("spark.jars.packages", PACKAGES)
        .config("spark.jars.ivy", ivy)
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.shuffle.partitions", cores)
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    read = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .load()
        .select("partition", "offset", f.from_json(f.col("value").cast("string"), schema).alias("e"))
    )
    found = {"land": _landed, "windows": _windows, "join": _joined}[question](spark, read)
    seconds = [_run(found, f"{folder}/{turn}") for turn in ("cold", "warm")]
    rows = spark.read.format("delta").load(f"{folder}/warm/table").count()
    print(json.dumps({"rows": rows, "cold": seconds[0], "warm": seconds[1]}))
    spark.stop()


def _landed(_spark: SparkSession, read: Any) -> Any:
    envelope = "e.payload.*" if "payload" in read.schema["e"].dataType.names else "e.*"
    return read.select("partition", "offset", envelope).select(
        "partition", "offset", "op", f.col("source.lsn").alias("lsn"), "after.*"
    )


def _updates(read: Any) -> Any:
    return read.where("e.op = 'u'").select(f.timestamp_millis("e.source.ts_ms").alias("at"), "e.after.*")


def _windows(_spark: SparkSession, read: Any) -> Any:
    return (
        _updates(read)
        .withWatermark("at", "0 seconds")
        .groupBy(f.window("at", "1 second"), "store")
        .agg(f.count("*").alias("orders"), f.sum("quantity").alias("pieces"))
    )


def _joined(spark: SparkSession, read: Any) -> Any:
    dimension = spark.createDataFrame([(s, f"region {s % 7}") for s in range(400)], ["store", "region"])
    return _updates(read).where("quantity >= 40").join(f.broadcast(dimension), "store")


def _run(found: Any, folder: str) -> float:
    begun = time.monotonic()
    query = (
        found.writeStream.format("delta")
        .outputMode("append")
        .option("checkpointLocation", f"{folder}/checkpoint")
        .trigger(availableNow=True)
        .start(f"{folder}/table")
    )
    query.awaitTermination()
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
