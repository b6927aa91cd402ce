// The tile registers of AMX in a thread's hands. Included inside the unnamed namespace of a path.

constexpr int kTileRows = 16;  // at most

/// What ldtilecfg reads.
struct TileConfig {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

/// Those for 1 to 16 rows. Constants: compilers do not know that ldtilecfg reads more than a pointer's size.
constexpr std::array<TileConfig, kTileRows> configs(TileConfig (*of)(int rows)) {
    std::array<TileConfig, kTileRows> result{};
    for (int rows = 1; rows <= kTileRows; ++rows) result[static_cast<std::size_t>(rows - 1)] = of(rows);
    return result;
}

/// Given back at the end: what is in use is saved at every switch of threads.
class Tiles {
public:
    explicit Tiles(const TileConfig& config) { _tile_loadconfig(&config); }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};
