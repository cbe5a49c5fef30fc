// SPDX-License-Identifier: Apache-2.0
// How a link begins and ends: the handshake, the communicator, leave-taking, and what happens when a peer is lost.
#include "link.hpp"

#include <cstdio>

namespace nccl_backend {
namespace {

constexpr std::uint64_t kLeaveNs = 2'000'000'000;  // for the peer's last word

}  // namespace

using cuda_backend::kNotReady;
using cuda_backend::kSuccess;

pega_status Link::open_mover() {
    const CudaResult result = mover_.open(*device_.driver, device_.kernels, device_.settings.chunk_bytes,
                                          static_cast<unsigned>(device_.settings.multiprocessors));
    mover_open_ = result == kSuccess;
    chunk_bytes_ = device_.settings.chunk_bytes;
    step_since_ns_ = device_.now();
    return to_status(result);
}

pega_status Link::make_self(pega_device& device, pega_channel* channel, std::unique_ptr<Link>& out) {
    out.reset(new Link(device, Role::kSelf));
    out->channel_ = channel;
    out->peer_ = device.address.device;
    out->state_ = State::kOpen;
    return out->open_mover();
}

pega_status Link::make_opener(pega_device& device, pega_channel* channel, const Address& address, std::unique_ptr<Link>& out) {
    if (address.gpu == device.address.gpu) {
        pegaflow::backend::log(device.host, PEGA_LOG_ERROR, "nccl",
                               "the peer uses the same GPU %d: NCCL joins different GPUs; take the cuda back end",
                               device.index);
        return PEGA_UNSUPPORTED;
    }
    out.reset(new Link(device, Role::kOpener));
    Link& link = *out;
    link.channel_ = channel;
    link.peer_ = address.device;
    if (device.nccl->ncclGetUniqueId(&link.unique_id_) != kNcclSuccess) return PEGA_RETRY_OTHER_PATH;
    if (const pega_status opened = link.open_mover(); opened != PEGA_OK) return opened;
    link.control_ = std::make_unique<Connection>();
    link.control_->watched_by(device.epoll_fd);
    if (!link.control_->connect(address)) return PEGA_PEER_LOST;
    Hello hello{kProtocol,
                static_cast<std::uint32_t>(device.nccl->version),
                link.chunk_bytes_,
                address.token,
                device.address.device,
                device.address.gpu,
                {}};
    std::memcpy(hello.unique_id, link.unique_id_.bytes, sizeof hello.unique_id);
    link.control_->send(FrameType::kHello, hello);
    return PEGA_OK;
}

pega_status Link::make_target(pega_device& device, std::unique_ptr<Connection> connection, const Hello& hello,
                              std::unique_ptr<Link>& out) {
    out.reset(new Link(device, Role::kTarget));
    Link& link = *out;
    link.peer_ = hello.device;
    link.control_ = std::move(connection);
    std::memcpy(link.unique_id_.bytes, hello.unique_id, sizeof hello.unique_id);
    if (const pega_status opened = link.open_mover(); opened != PEGA_OK) return opened;
    const Welcome welcome{kProtocol, static_cast<std::uint32_t>(device.nccl->version), link.chunk_bytes_};
    link.control_->send(FrameType::kWelcome, welcome);
    link.chunk_bytes_ = std::min(link.chunk_bytes_, hello.chunk_bytes);
    return link.join(1) ? PEGA_OK : PEGA_RETRY_OTHER_PATH;
}

Link::~Link() {
    drop_communicator();
    for (Event event : {drained_comm_, drained_side_}) {
        if (event != nullptr) mover_.give_event(event);
    }
    if (mover_open_) mover_.close();
}

pega_status Link::state() const noexcept {
    if (broken_ != PEGA_OK) return broken_;
    return state_ == State::kOpen ? PEGA_OK : PEGA_PENDING;
}

bool Link::busy() const noexcept {
    if (state_ == State::kJoining || state_ == State::kDraining || state_ == State::kLeaving || count_ != 0) return true;
    return channel_ != nullptr && !channel_->queue.empty();
}

void Link::advance() {
    if (state_ == State::kGone || state_ == State::kBroken) return;
    if (state_ == State::kDraining) return drain();
    if (control_ != nullptr) {
        control_->work();
        handle_frames();
    }
    watch_join();
    feed();
    post_ready();
    watch_ends();
    settle();
    if (role_ == Role::kTarget && state_ == State::kOpen && bye_heard_ && count_ == 0) {
        control_->send(FrameType::kBye, Bytes{});
        return leave();
    }
    check_time();
    if (control_ != nullptr) control_->work();
}

void Link::handle_frames() {
    Frame frame;
    const auto live = [this] { return state_ != State::kDraining && state_ != State::kBroken && state_ != State::kGone; };
    // An announcement waits until there is a place for it; so the peer cannot fill our memory.
    while (live() && (role_ != Role::kTarget || room()) && control_->next(kMostBody, frame)) handle(frame);
    if (!live() || !control_->lost()) return;
    if (control_->broken_protocol()) return fail(PEGA_PEER_LOST, 0, "the peer sent what is no frame of this protocol");
    if (state_ == State::kLeaving || (role_ == Role::kTarget && count_ == 0 && bye_heard_)) return leave();
    fail(PEGA_PEER_LOST, 0, "the control connection ended");
}

void Link::handle(const Frame& frame) {
    Welcome welcome{};
    Refuse refuse{};
    Answer answer{};
    Done done{};
    Notify notify{};
    const bool opener = role_ == Role::kOpener;
    if (opener && frame.type == FrameType::kWelcome && read_body(frame.body, welcome)) return welcomed(welcome);
    if (opener && frame.type == FrameType::kRefuse && read_body(frame.body, refuse)) return refused(refuse);
    if (opener && frame.type == FrameType::kAnswer && read_body(frame.body, answer)) return answered(answer);
    if (opener && frame.type == FrameType::kDone && read_body(frame.body, done)) return landed_there(done);
    if (!opener && frame.type == FrameType::kAnnounce) return announced(frame.body);
    if (!opener && frame.type == FrameType::kNotify && read_body(frame.body, notify)) {
        ++device_.arrived[notify.value];
        return;
    }
    if (frame.type == FrameType::kBye && frame.body.empty()) {
        bye_heard_ = true;
        if (opener && state_ == State::kLeaving) leave();
        return;
    }
    fail(PEGA_PEER_LOST, 0, "the peer sent a frame that has no place here");
}

void Link::welcomed(const Welcome& welcome) {
    if (state_ != State::kConnecting || welcome.chunk_bytes == 0)
        return fail(PEGA_PEER_LOST, 0, "the peer's welcome is not sound");
    chunk_bytes_ = std::min(chunk_bytes_, welcome.chunk_bytes);
    join(0);
}

void Link::refused(const Refuse& refuse) {
    char text[sizeof refuse.text + 32];
    std::snprintf(text, sizeof text, "the peer refuses: %.*s", static_cast<int>(sizeof refuse.text), refuse.text);
    fail(refuse.status == PEGA_UNSUPPORTED ? PEGA_RETRY_OTHER_PATH : PEGA_PEER_LOST, 0, text);
}

bool Link::join(int rank) {
    Config config;
    if (device_.settings.max_ctas != 0) config.max_ctas = static_cast<int>(device_.settings.max_ctas);
    state_ = State::kJoining;
    step_since_ns_ = device_.now();
    const NcclResult result = device_.nccl->ncclCommInitRankConfig(&comm_, 2, unique_id_, rank, &config);
    if (result == kNcclSuccess || result == kNcclInProgress) return true;
    fail(PEGA_RETRY_OTHER_PATH, kNativeNccl + result, device_.nccl->ncclGetErrorString(result));
    return false;
}

void Link::watch_join() {
    if (state_ != State::kJoining) return;
    NcclResult now = kNcclSuccess;
    const NcclResult asked = device_.nccl->ncclCommGetAsyncError(comm_, &now);
    const NcclResult result = asked == kNcclSuccess ? now : asked;
    if (result == kNcclInProgress) return;
    if (result != kNcclSuccess)
        return fail(PEGA_RETRY_OTHER_PATH, kNativeNccl + result, device_.nccl->ncclGetErrorString(result));
    state_ = State::kOpen;
}

void Link::check_time() {
    const bool step = state_ == State::kConnecting || state_ == State::kJoining;
    const std::uint64_t limit = device_.settings.timeout_ms * 1'000'000;
    if (is_self() || (!step && state_ != State::kLeaving && count_ == 0)) return;
    const std::uint64_t now = device_.now();
    if (step && now - step_since_ns_ > limit) return fail(PEGA_PEER_LOST, 0, "the peer did not join in time");
    if (state_ == State::kLeaving && now - step_since_ns_ > kLeaveNs) return leave();
    if (count_ != 0 && now - part(0).since_ns > limit) fail(PEGA_PEER_LOST, 0, "a part made no progress in time");
}

void Link::drop_communicator() noexcept {
    if (comm_ != nullptr) device_.nccl->ncclCommAbort(comm_);
    comm_ = nullptr;
}

// Aborting makes NCCL's kernels return; only when the streams have come to an end does nothing touch memory any more.
void Link::fail(pega_status status, std::int32_t native, const char* why) {
    if (state_ == State::kDraining || state_ == State::kBroken || state_ == State::kGone) return;
    pegaflow::backend::log(device_.host, PEGA_LOG_WARNING, "nccl", "GPU %d: a link is given up: %s", device_.index, why);
    broken_ = status;
    broken_native_ = native;
    state_ = State::kDraining;
    drop_communicator();
    if (control_ != nullptr) control_->close();
    for (auto [event, stream] : {std::pair{&drained_comm_, mover_.comm()}, std::pair{&drained_side_, mover_.side()}}) {
        *event = mover_.take_event();
        if (*event == nullptr || device_.driver->cuEventRecord(*event, stream) != kSuccess)
            device_.driver->cuStreamSynchronize(stream);  // without an event there is no other way to know
    }
}

void Link::drain() {
    for (Event event : {drained_comm_, drained_side_}) {
        if (event != nullptr && device_.driver->cuEventQuery(event) == kNotReady) return;
    }
    while (count_ != 0) pop_part();
    state_ = State::kGone;
    if (channel_ == nullptr) return;
    state_ = State::kBroken;
    while (!channel_->queue.empty()) {
        Batch& batch = *channel_->queue.front();
        batch.parts = 0;
        if (batch.status == PEGA_OK) {
            batch.status = broken_;
            batch.native_code = broken_native_;
        }
        end_batch(batch);
    }
}

// Both sides' kernels have ended when the opener says goodbye, and the target's when it answers: then nobody needs the other.
void Link::leave() {
    drop_communicator();
    if (control_ != nullptr) {
        control_->work();
        control_->close();
    }
    state_ = State::kGone;
}

void Link::release_channel() {
    channel_ = nullptr;
    if (state_ == State::kBroken || is_self()) {
        state_ = State::kGone;
    } else if (state_ == State::kOpen) {
        control_->send(FrameType::kBye, Bytes{});
        control_->work();
        state_ = State::kLeaving;
        step_since_ns_ = device_.now();
    } else {
        fail(PEGA_CANCELED, 0, "the channel was closed before it was connected");
    }
}

void Link::shut_down() {
    if (role_ != Role::kTarget || state_ == State::kGone || state_ == State::kDraining) return;
    fail(PEGA_CANCELED, 0, "the device is closed");
}

}  // namespace nccl_backend
