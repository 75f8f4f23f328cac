from cdc_lake.cli.main import main

if __name__ == "__main__":
    main()
