"""Spark structured streaming from Kafka to Delta, as its documentation writes it.

`benchmarks.peers` runs it in Spark's own environment: `spark_job.py BOOTSTRAP TOPIC FOLDER IVY CORES SCHEMA`.

Prints the seconds of the second of two equal runs of one session as JSON: the first warms the JVM.
"""

from __future__ import annotations

import json
import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

PACKAGES = "io.delta:delta-spark_4.2_2.13:4.4.0,org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"


def main() -> None:
    bootstrap, topic, folder, ivy, cores, schema = sys.argv[1:]
    spark = (
        SparkSession.builder.master(f"local[{cores}]")
        .config("spark.jars.packages", PACKAGES)
        .config("spark.jars.ivy", ivy)
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    seconds = [_run(spark, bootstrap, topic, f"{folder}/{turn}", schema) for turn in ("cold", "warm")]
    rows = spark.read.format("delta").load(f"{folder}/warm/table").count()
    print(json.dumps({"rows": rows, "cold": seconds[0], "warm": seconds[1]}))
    spark.stop()


def _run(spark: SparkSession, bootstrap: str, topic: str, folder: str, schema: str) -> float:
    begun = time.monotonic()
    event = f.from_json(f.col("value").cast("string"), schema)
    read = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .load()
        .select("partition", "offset", event.alias("e"))
        .select("partition", "offset", "e.payload.*" if "payload" in schema else "e.*")
        .select("partition", "offset", "op", f.col("source.lsn").alias("lsn"), "after.*")
    )
    query = (
        read.writeStream.format("delta")
        .option("checkpointLocation", f"{folder}/checkpoint")
        .trigger(availableNow=True)
        .start(f"{folder}/table")
    )
    query.awaitTermination()
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
