// The main loop of all products: fp32 on CUDA cores, tf32 and bf16 on tensor cores. gemm.cuh chooses among the tiles and is
// what other files include.
//
//             N                a block's tile, fp32, 128 x 128     a warp's 64 x 64: each lane has 4 x 4 of each of its
//        +----------+                   64        64               eight rectangles of 32 x 16, 8 x 16 sums in all,
//     K  |  b       |              +---------+---------+           from 2 + 4 loads of 16 bytes for every k.
//        |..||......|  chunk 256   |         |         |
//        |  ||tile16|              |   w0    |   w1    | 64          lanes of a     +----+----+----+----+
//        +----------+              |         |         |             rectangle:     |  0 |  1 |  4 |  5 |  4 rows
//   +-+  +----------+              +---------+---------+             two bits of    |  2 |  3 |  6 |  7 |  4
//   | |  |  c  +--+ |              |         |         |             the column,    |  8 |  9 | 12 | 13 |  4
// M |a|  |     |  | |              |   w2    |   w3    | 64          three of the   | 10 | 11 | 14 | 15 |  4
//   | |  |     +--+ |              |         |         |             row, in turn   |    ...            |
//   +-+  +----------+              +---------+---------+                            +----+----+----+----+
//                                                                                      4    4    4    4 columns
//   tensor cores: 256 x 128 by eight warps of 64 x 64, each 4 x 8 of mma's 16 x 8
//
// Shared memory holds kStages tiles of a and b, 16 deep: while one is multiplied, the next are on their way (cp.async). One
// barrier a tile. Order of every sum: K is cut into chunks of 256; inside a chunk sum = fma(a, b, sum) for k ascending, from
// 0; then c = beta c + sum for the first chunk and c = c + sum for the others, as the CPU does it. So fp32 products of any
// shape have the bits of the CPU's, whatever the tile. Between chunks the sums live in c (the block's own part of it): 128
// registers less, at 128 reads and writes for 32,768 multiplications; where the tile lies inside c, each thread puts its own
// aside while the copies go on. Tensor cores go through K in steps of 8 or 16 without chunks.
//
// Small tiles take several chunks at once (kGroups groups of threads, one each, added in the order of chunks); where even that
// leaves a GPU empty and the caller has scratch, parts of K go to blocks of their own (gemm.cuh).
#pragma once
#include "gemm_operands.cuh"

namespace fastdl {

// Where four neighbours of c stand, for epilogues.
struct Place {
  i64 batch, m, n;  // columns n .. n + count of row m
  i64 at;           // element c[at] is the first of them
  int count;        // 1 to 4
};

struct Product {
  i64 M, N, K;
  i64 batch, a_step, b_step, c_step;  // elements from one product of a batch to the next
  float beta;
  float* c;
  i64 ldc;
  bool mapped;  // row m of c begins at `rows`' offset, not at m * ldc
  bool wide;    // c may be read and written by 16 bytes
  Axis rows;
  i64 parts, part_chunks, part_step;  // blockIdx.y takes this many chunks, and writes this far from c
};

// ------------------------------------------------------------------------------------------------------- tiles

// WarpsM x WarpsN warps, each of MQ x NQ squares of 32 x 16 (8 x 4 lanes, 4 x 4 each), or with LanesN = 1 of 128 x 4.
template <int WarpsM, int WarpsN, int MQ, int NQ, int Groups, int Blocks, int LanesN = 4>
struct CudaCores {
  static constexpr int kWarpsM = WarpsM, kWarpsN = WarpsN, kPasses = MQ, kGroups = Groups;
  static constexpr int kBlocksPerSM = kAsync ? Blocks : (Blocks + 1) / 2;  // sm_75 has shared memory for half as many
  static constexpr int kSquareM = 128 / LanesN, kSquareN = 4 * LanesN;
  static constexpr int kWarpM = kSquareM * MQ, kWarpN = kSquareN * NQ;
  static constexpr int kM = WarpsM * kWarpM, kN = WarpsN * kWarpN;
  static constexpr int kStages = 2;
  static constexpr int kGroupThreads = 32 * WarpsM * WarpsN;
  static constexpr bool kTensor = false;
  template <class Operand, int BI>
  using Frame = TileFrame<BI, kGroupThreads, true, 4>;

  float sum[4 * MQ][4 * NQ];
  int at_m, at_n;

  // Lanes alternate, one bit of the row, one of the column: neighbours share a, those two apart share b, and of 16 lanes
  // neither reads more than 64 bytes: then 16-byte loads take two passes of shared memory instead of four.
  static __device__ __forceinline__ int lane_m(int lane) { return LanesN == 1 ? lane : (lane >> 1 & 1) | (lane >> 3 << 1); }
  static __device__ __forceinline__ int lane_n(int lane) { return LanesN == 1 ? 0 : (lane & 1) | (lane >> 2 & 1) << 1; }

  __device__ __forceinline__ explicit CudaCores(int t) {
    const int lane = t % 32, warp = t / 32;
    at_m = warp / WarpsN * kWarpM + lane_m(lane) * 4;
    at_n = warp % WarpsN * kWarpN + lane_n(lane) * 4;
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 4 * MQ; ++i)
#pragma unroll
      for (int j = 0; j < 4 * NQ; ++j) sum[i][j] = 0.0f;
  }
  template <class FrameA, class FrameB>
  __device__ __forceinline__ void multiply(const float* a, const float* b) {
    a += at_m, b += at_n;
#pragma unroll
    for (int k = 0; k < kTileK; ++k) {
      float x[4 * MQ], y[4 * NQ];
#pragma unroll
      for (int q = 0; q < MQ; ++q) load4(a + FrameA::place(kSquareM * q, k), x + 4 * q);
#pragma unroll
      for (int q = 0; q < NQ; ++q) load4(b + FrameB::place(kSquareN * q, k), y + 4 * q);
#pragma unroll
      for (int i = 0; i < 4 * MQ; ++i)
#pragma unroll
        for (int j = 0; j < 4 * NQ; ++j) sum[i][j] = fma(x[i], y[j], sum[i][j]);
    }
  }
  // Sums go to c (beta c + sums where c has none of them yet) and are zero again. corner: the tile's first element, all of it
  // inside and aligned. A thread meets its own elements only.
  __device__ __forceinline__ void put_aside(float* corner, i64 ldc, int t, bool first, float beta) {
    keep_inside(t);
    const int lane = t % 32, warp = t / 32;
    corner += (warp / WarpsN * kWarpM + lane_m(lane) * 4) * ldc + warp % WarpsN * kWarpN + lane_n(lane) * 4;
#pragma unroll
    for (int m = 0; m < 2 * MQ; ++m) {  // two rows at a time: so many loads on their way
      float4* at[2][NQ];
      float4 v[2][NQ];
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int q = 0; q < NQ; ++q) {
          at[r][q] = reinterpret_cast<float4*>(corner + (m / 2 * kSquareM + m % 2 * 2 + r) * ldc + kSquareN * q);
          v[r][q] = first && beta == 0.0f ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : *at[r][q];
        }
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int q = 0; q < NQ; ++q) {
          float4 u = v[r][q];
          float(&s)[4 * NQ] = sum[m * 2 + r];
          if (first && beta == 0.0f) {
            u = make_float4(s[4 * q], s[4 * q + 1], s[4 * q + 2], s[4 * q + 3]);
          } else {
            if (first) u.x *= beta, u.y *= beta, u.z *= beta, u.w *= beta;
            u.x += s[4 * q], u.y += s[4 * q + 1], u.z += s[4 * q + 2], u.w += s[4 * q + 3];
          }
          *at[r][q] = u;
          s[4 * q] = s[4 * q + 1] = s[4 * q + 2] = s[4 * q + 3] = 0.0f;
        }
    }
  }
  // Rows pass of every warp's part, kSquareM of them, one line of kN + 4 floats each.
  __device__ __forceinline__ void stage(float* to, int pass, int t) const {
    keep_inside(t);
    const int lane = t % 32, warp = t / 32;
    const int line = warp / WarpsN * kSquareM + lane_m(lane) * 4, column = warp % WarpsN * kWarpN + lane_n(lane) * 4;
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int q = 0; q < NQ; ++q) {
        float4 v = make_float4(sum[r][4 * q], sum[r][4 * q + 1], sum[r][4 * q + 2], sum[r][4 * q + 3]);
        if (MQ > 1 && pass > 0) {  // selected, not indexed: an array indexed by a variable would live in memory
          const int s = 4 * (MQ - 1) + r;
          v = make_float4(sum[s][4 * q], sum[s][4 * q + 1], sum[s][4 * q + 2], sum[s][4 * q + 3]);
        }
        *reinterpret_cast<float4*>(to + (line + r) * (kN + 4) + column + kSquareN * q) = v;
      }
  }

 private:
  static_assert(MQ <= 2 && (LanesN == 1 || LanesN == 4), "stage selects between two");
  static __device__ __forceinline__ void load4(const float* from, float* to) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  }
};

// WarpsM x WarpsN warps, each of 2 MH x NJ mma tiles of 16 x 8. Both formats take their words from shared memory as fp32 and
// round them in registers: by ldmatrix from [i][k], by four loads of 4 bytes from [k][i] (lines of BI + 8: every bank once).
// bf16 pairs element k + t with k + t + 4: the order inside one mma is not defined anyway, and a and b agree.
template <int WarpsM, int WarpsN, int MH, int NJ, bool BF16, int Stages, int Blocks>
struct TensorCores {
  static constexpr int kWarpsM = WarpsM, kWarpsN = WarpsN, kPasses = MH, kGroups = 1;
  static constexpr int kBlocksPerSM = Blocks;
  static constexpr int kSquareM = 32;  // rows of a pass
  static constexpr int kWarpM = 32 * MH, kWarpN = 8 * NJ;
  static constexpr int kM = WarpsM * kWarpM, kN = WarpsN * kWarpN;
  static constexpr int kStages = Stages;
  static constexpr int kGroupThreads = 32 * WarpsM * WarpsN;
  static constexpr bool kTensor = true;
  template <class Operand, int BI>
  using Frame = TileFrame<BI, kGroupThreads, !Operand::kAlongK, 8>;

  float sum[2 * MH][NJ][4];
  int warp_m, warp_n, lane;

  __device__ __forceinline__ explicit TensorCores(int t)
      : warp_m(t / 32 / WarpsN * kWarpM), warp_n(t / 32 % WarpsN * kWarpN), lane(t % 32) {}
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 2 * MH; ++i)
#pragma unroll
      for (int j = 0; j < NJ; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[i][j][e] = 0.0f;
  }
  template <class FrameA, class FrameB>
  __device__ __forceinline__ void multiply(const float* a, const float* b) {
    a += FrameA::kLines ? FrameA::place(warp_m + lane / 4, lane % 4) : FrameA::place(warp_m + lane % 16, lane / 16 * 4);
    b += FrameB::kLines ? FrameB::place(warp_n + lane / 4, lane % 4)
                        : FrameB::place(warp_n + lane / 16 * 8 + lane % 8, lane / 8 % 2 * 4);
    constexpr int kStep = BF16 ? 16 : 8;
#pragma unroll
    for (int k = 0; k < kTileK; k += kStep) {
      uint32_t y[NJ][2];
#pragma unroll
      for (int j = 0; j < NJ; j += 2) {
        uint32_t w[4];
        words_b<FrameB>(w, b, 8 * j, k);
        if constexpr (BF16) {
          uint32_t high[4];
          words_b<FrameB>(high, b, 8 * j, k + 8);
          y[j][0] = pair(w[0], w[1]), y[j][1] = pair(high[0], high[1]);
          y[j + 1][0] = pair(w[2], w[3]), y[j + 1][1] = pair(high[2], high[3]);
        } else {
          y[j][0] = rounded(w[0]), y[j][1] = rounded(w[1]), y[j + 1][0] = rounded(w[2]), y[j + 1][1] = rounded(w[3]);
        }
      }
#pragma unroll
      for (int i = 0; i < 2 * MH; ++i) {
        uint32_t w[4], x[4];
        words_a<FrameA>(w, a, 16 * i, k);
        if constexpr (BF16) {
          uint32_t high[4];
          words_a<FrameA>(high, a, 16 * i, k + 8);
          x[0] = pair(w[0], w[2]), x[1] = pair(w[1], w[3]), x[2] = pair(high[0], high[2]), x[3] = pair(high[1], high[3]);
#pragma unroll
          for (int j = 0; j < NJ; ++j) mma_bf16_16x8x16(sum[i][j], x, y[j]);
        } else {
#pragma unroll
          for (int e = 0; e < 4; ++e) x[e] = rounded(w[e]);
#pragma unroll
          for (int j = 0; j < NJ; ++j) mma_tf32_16x8x8(sum[i][j], x, y[j]);
        }
      }
    }
  }
  __device__ __forceinline__ void put_aside(float*, i64, int, bool, float) {}
  __device__ __forceinline__ void stage(float* to, int pass, int) const {
    const int line = warp_m / kWarpM * 32 + lane / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int j = 0; j < NJ; ++j) {
        float2 up = make_float2(sum[h][j][0], sum[h][j][1]), down = make_float2(sum[h][j][2], sum[h][j][3]);
        if (MH > 1 && pass > 0) {
          const int s = 2 * (MH - 1) + h;
          up = make_float2(sum[s][j][0], sum[s][j][1]), down = make_float2(sum[s][j][2], sum[s][j][3]);
        }
        float* p = to + (line + 16 * h) * (kN + 4) + warp_n + 8 * j + lane % 4 * 2;
        *reinterpret_cast<float2*>(p) = up;
        *reinterpret_cast<float2*>(p + 8 * (kN + 4)) = down;
      }
  }

 private:
  static_assert(MH <= 2 && NJ % 2 == 0, "stage selects between two; b comes by pairs");
  static __device__ __forceinline__ uint32_t rounded(uint32_t word) { return to_tf32(__uint_as_float(word)); }
  static __device__ __forceinline__ uint32_t pair(uint32_t low, uint32_t high) {
    return to_bf16x2(__uint_as_float(low), __uint_as_float(high));
  }
  // Elements (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4) of a's 16 x 8 at (i, k).
  template <class F>
  static __device__ __forceinline__ void words_a(uint32_t (&w)[4], const float* a, int i, int k) {
    if constexpr (F::kLines) {
#pragma unroll
      for (int e = 0; e < 4; ++e) w[e] = __float_as_uint(a[F::place(i + e % 2 * 8, k + e / 2 * 4)]);
    } else {
      load_matrix_x4(w, a + F::place(i, k));
    }
  }
  // Elements (t, g), (t + 4, g) of b's 8 x 8 at (k, i), then those at (k, i + 8).
  template <class F>
  static __device__ __forceinline__ void words_b(uint32_t (&w)[4], const float* b, int i, int k) {
    if constexpr (F::kLines) {
#pragma unroll
      for (int e = 0; e < 4; ++e) w[e] = __float_as_uint(b[F::place(i + e / 2 * 8, k + e % 2 * 4)]);
    } else {
      load_matrix_x4(w, b + F::place(i, k));
    }
  }
};

// ------------------------------------------------------------------------------------------------------ kernel

template <class Tile, class A, class B>
struct GemmShared {
  using FrameA = typename Tile::template Frame<A, Tile::kM>;
  static constexpr int kLoadN = Tile::kN < 32 ? 32 : Tile::kN;  // columns that are loaded: loaders have whole warps
  using FrameB = typename Tile::template Frame<B, kLoadN>;
  static constexpr int kA = FrameA::kFloats, kB = FrameB::kFloats;
  static constexpr int kLines = Tile::kWarpsM * Tile::kSquareM, kLine = Tile::kN + 4;  // of the sums: they go out through it
  static constexpr int kTiles = Tile::kStages * (kA + kB) > kLines * kLine ? Tile::kStages * (kA + kB) : kLines * kLine;
  alignas(16) float tiles[Tile::kGroups][kTiles];
  typename TableOf<A, Tile::kM>::type a_table[Tile::kGroups];
  typename TableOf<B, kLoadN>::type b_table[Tile::kGroups];
};

// First row and column of a block's tile. Tiles go in bands of eight rows of tiles, column by column: those that run together
// share what they read in L2. Worked out anew wherever it is needed: registers that live through the main loop are dear.
struct Corner {
  i64 m, n;
};
template <class Tile>
__device__ __forceinline__ Corner corner_of(const Product& p) {
  int id = static_cast<int>(blockIdx.x);
  keep_inside(id);
  const i64 rows = (p.M + Tile::kM - 1) / Tile::kM, columns = (p.N + Tile::kN - 1) / Tile::kN;
  const i64 band = quotient(id, 8 * columns), in_band = id - band * 8 * columns;
  const i64 height = rows - band * 8 < 8 ? rows - band * 8 : 8, column = quotient(in_band, height);
  return {(band * 8 + in_band - column * height) * Tile::kM, column * Tile::kN};
}
// How much of K a part still has before it in this round.
struct Stretch {
  i64 k0, left;
};
__device__ __forceinline__ Stretch stretch_of(const Product& p, int round, i64 step) {
  keep_inside(round);
  const i64 begin = blockIdx.y * p.part_chunks * kChunk, end = begin + p.part_chunks * kChunk;
  const i64 k0 = begin + round * step;
  return {k0, (end < p.K ? end : p.K) - k0};
}

constexpr i64 kLongestStretch = i64{1} << 28;  // of K, of which loaders count bytes by an int
static_assert((kLongestStretch + 4 * kTileK) * 4 <= INT32_MAX, "and some tiles ahead");

template <class Tile, class A, class B, class Epilogue>
__global__ void __launch_bounds__(Tile::kGroups * Tile::kGroupThreads, Tile::kBlocksPerSM)
    product(Product p, A a, B b, Epilogue epilogue) {
  using Shared = GemmShared<Tile, A, B>;
  Shared& shared = shared_memory<Shared>();
  constexpr int kGroups = Tile::kGroups, kThreads = kGroups * Tile::kGroupThreads, kStages = Tile::kStages;
  constexpr bool kTables = A::kTable || B::kTable;
  const int group = kGroups > 1 ? threadIdx.x / Tile::kGroupThreads : 0;
  const int t = threadIdx.x % Tile::kGroupThreads;

  // Whether the pipeline of copies goes on from chunk to chunk, as far as an int counts bytes: it does with tensor cores, and
  // where sums can be put aside without the tiles' memory.
  const auto flows = [&p] {
    if constexpr (Tile::kTensor) return true;
    if (kGroups > 1) return false;
    const Corner corner = corner_of<Tile>(p);
    return p.wide && !p.mapped && corner.m + Tile::kM <= p.M && corner.n + Tile::kN <= p.N;
  };

  const auto batch_of = [](int turn) {
    keep_inside(turn);
    return blockIdx.z + static_cast<i64>(turn) * gridDim.z;
  };
  for (int turn = 0; batch_of(turn) < p.batch; ++turn) {
    Loader<A, typename Shared::FrameA> load_a;
    Loader<B, typename Shared::FrameB> load_b;
    {
      const Corner corner = corner_of<Tile>(p);
      load_a.block(a, corner.m, p.M, t, shared.a_table[group]);
      load_b.block(b, corner.n, p.N, t, shared.b_table[group]);
    }
    Tile tile(t);
    tile.clear();
    int round = 0;
    bool first = true, last;  // no sums of this product are put aside yet
    do {  // once even for K = 0
      int count;
      {
        const i64 chunk = flows() ? kLongestStretch : kChunk;
        const Corner corner = corner_of<Tile>(p);
        const Stretch whole = stretch_of(p, round, kGroups * chunk);
        count = static_cast<int>(whole.left < chunk ? whole.left : chunk);
        const i64 k0 = whole.k0 + group * chunk, mine = whole.left - group * chunk;
        const i64 batch = batch_of(turn);
        load_a.chunk(a, batch * p.a_step, corner.m, p.M, k0, mine < chunk ? mine : chunk, t);
        load_b.chunk(b, batch * p.b_step, corner.n, p.N, k0, mine < chunk ? mine : chunk, t);
      }
      if (kTables) __syncthreads();

      constexpr int kStage = Shared::kA + Shared::kB;
      float* const tiles = shared.tiles[group];
      int write = 0, read = 0, k = 0;
      const auto fetch = [&](int at) {
        if (at < count) {
          load_a.tile(tiles + write, at);
          load_b.tile(tiles + write + Shared::kA, at);
        }
        copy_async_commit();
      };
      const auto finish = [&](int at) {
        if (at < count) {
          load_a.store(tiles + write);
          load_b.store(tiles + write + Shared::kA);
        }
        write = write == (kStages - 1) * kStage ? 0 : write + kStage;
      };
#pragma unroll 1  // code is dear: a loader of its own for each stage doubles the kernel
      for (int s = 0; s < kStages - 1; ++s) {
        fetch(s * kTileK);
        finish(s * kTileK);
      }
#pragma unroll 1
      for (;;) {
        if (kTables && k + kChunk < count) {  // the half that was in use a chunk ago
          const i64 k0 = stretch_of(p, round, kLongestStretch).k0;
          load_a.next(a, k0, k);
          load_b.next(b, k0, k);
        }
        const int end = kTables || !Tile::kTensor ? smaller(count, k + kChunk) : count;
#pragma unroll 1
        for (; k < end; k += kTileK) {
          copy_async_wait<kStages - 2>();
          __syncthreads();  // the tile is there for all, and all are done with the one before: its memory is free
          fetch(k + (kStages - 1) * kTileK);
          tile.template multiply<typename Shared::FrameA, typename Shared::FrameB>(tiles + read, tiles + read + Shared::kA);
          finish(k + (kStages - 1) * kTileK);
          read = read == (kStages - 1) * kStage ? 0 : read + kStage;
        }
        if (Tile::kTensor) {
          if (k >= count) break;
        } else {
          if (k >= count) break;
          const Corner corner = corner_of<Tile>(p);
          tile.put_aside(p.c + batch_of(turn) * p.c_step + blockIdx.y * p.part_step + corner.m * p.ldc + corner.n, p.ldc, t,
                         first, p.beta);
          first = false;
          if (k >= count) break;
        }
      }

      const bool flow = flows();
      const i64 chunk = flow ? kLongestStretch : kChunk;
      const i64 left = stretch_of(p, round, kGroups * chunk).left;
      last = left <= kGroups * chunk;
      ++round;
      if (flow && !last) {
        if (!Tile::kTensor) {
          const Corner corner = corner_of<Tile>(p);
          tile.put_aside(p.c + batch_of(turn) * p.c_step + blockIdx.y * p.part_step + corner.m * p.ldc + corner.n, p.ldc, t,
                         first, p.beta);
          first = false;
        }
        __syncthreads();  // before the tables and tiles of the next stretch
        continue;
      }
      int groups = 1;  // that had a chunk; the first has even for K = 0
      while (groups < kGroups && groups * chunk < left) ++groups;
      const Corner corner = corner_of<Tile>(p);
      const i64 batch = batch_of(turn);
#pragma unroll 1
      for (int pass = 0; pass < Tile::kPasses; ++pass) {
        __syncthreads();
        tile.stage(shared.tiles[group], pass, t);
        __syncthreads();
        for (int q = threadIdx.x; q < Shared::kLines * Tile::kN / 4; q += kThreads) {
          const int line = q / (Tile::kN / 4), column4 = q % (Tile::kN / 4) * 4;
          Place place;
          place.batch = batch;
          place.m = corner.m + line / Tile::kSquareM * Tile::kWarpM + pass * Tile::kSquareM + line % Tile::kSquareM;
          place.n = corner.n + column4;
          if (place.m >= p.M || place.n >= p.N) continue;
          place.at = (p.mapped ? entry_at(p.rows, place.m).offset : place.m * p.ldc) + place.n;
          place.count = p.N - place.n < 4 ? static_cast<int>(p.N - place.n) : 4;
          place.at += batch * p.c_step;
          float* const out = p.c + place.at + blockIdx.y * p.part_step;
          const bool wide = p.wide && place.count == 4;

          float v[4] = {};
          const bool reads = !first || p.beta != 0.0f;
          if (reads) {
            if (wide) {
              const float4 old = *reinterpret_cast<const float4*>(out);
              v[0] = old.x, v[1] = old.y, v[2] = old.z, v[3] = old.w;
            } else {
#pragma unroll
              for (int i = 0; i < 4; ++i)
                if (i < place.count) v[i] = out[i];
            }
            if (first) {
#pragma unroll
              for (int i = 0; i < 4; ++i) v[i] *= p.beta;
            }
          }
          for (int g = 0; g < groups; ++g) {
            const float4 s =
                *reinterpret_cast<const float4*>(shared.tiles[g] + line * Shared::kLine + column4);
            if (g == 0 && !reads) {
              v[0] = s.x, v[1] = s.y, v[2] = s.z, v[3] = s.w;
            } else {
              v[0] += s.x, v[1] += s.y, v[2] += s.z, v[3] += s.w;
            }
          }
          if (last && p.parts == 1) epilogue(v, place);
          if (wide) {
            *reinterpret_cast<float4*>(out) = make_float4(v[0], v[1], v[2], v[3]);
          } else {
#pragma unroll
            for (int i = 0; i < 4; ++i)
              if (i < place.count) out[i] = v[i];
          }
        }
      }
      __syncthreads();
      if (!last) tile.clear(), first = false;
    } while (!last);
  }
}

}  // namespace fastdl
